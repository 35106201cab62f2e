"""A recipe: which method fills each role, with every option. One strict typed config for the whole run."""

from __future__ import annotations

import copy
import difflib
import os
import re
import reprlib
import types
from collections.abc import Iterator, Mapping, Sequence
from functools import reduce
from importlib import resources
from operator import or_
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Union, get_args, get_origin

import yaml
from pydantic import BaseModel, Field, ValidationError, model_validator

from tad import bounds
from tad.data.dataset import Dataset
from tad.errors import ConfigError, DataError, listing
from tad.files import parse_yaml, read_yaml
from tad.methods.actionformer.detector import ActionFormerDetector
from tad.methods.pser.labeler import PserLabeler
from tad.methods.roles import Method, Scoring, one_grid
from tad.methods.snippet.proposer import SnippetProposer
from tad.options import option
from tad.ranges import Float, Integer
from tad.recipe.auto import AUTO
from tad.recipe.methods import registered
from tad.recipe.renamed import renamed
from tad.stages import StageConfig

if TYPE_CHECKING:
    from tad.methods.roles import Detector, Labeler, Proposer
else:  # the unions of what is registered, told apart by `method`
    Proposer, Labeler, Detector = (
        Annotated[reduce(or_, registered(role).values()), Field(discriminator="method")]
        for role in ("proposer", "labeler", "detector")
    )

ROLES = ("proposer", "encoder", "labeler", "detector")
LONGEST = 200
"""Characters of a value in an error message."""


class Stop(StageConfig):
    """When self-training ends before its last round."""

    change: bounds.PositiveFraction = option(
        0.97,
        "labels agree with the last round's: mean tIoU above this",
        tune=Float(0.8, 1.0),
        why="1: never; agreement of two rounds' labels is .8 even where they still improve",
        when=("rounds", (2, 3, 4)),
    )
    score_drop: bounds.Fraction = option(
        0.05,
        "the selecting score fell below its best by more than this",
        tune=Float(0.01, 1.0, log=True),
        why="1: never; a drop of .01 is within the noise of one training",
        when=("rounds", (2, 3, 4)),
    )


class OperatingPoint(StageConfig):
    """From which score on a detection counts; see docs/evaluation.md."""

    folds: int = option(
        0,
        "the training videos are dealt into so many folds, and for each the proposer and the detector are trained once "
        "more on the others; 0: no such training, and thresholds only where select reads boundaries of dev videos",
        ge=0,
        le=bounds.FOLDS,
        neutral=0,
    )

    @model_validator(mode="after")
    def _something_to_train_on(self) -> OperatingPoint:
        if self.folds == 1:
            raise ValueError("folds: with 1 nothing is left to train on; give 2 or more, 3 will do, or 0 for none")
        return self


class Recipe(StageConfig):
    """A whole self-training."""

    description: str = option("", "one line, for lists of recipes")
    proposer: Proposer = SnippetProposer()
    encoder: Proposer | None = option(
        None, "another proposer, whose embedding labelers read; null: the proposer's own", neutral=None
    )
    labeler: Labeler = PserLabeler()
    detector: Detector = ActionFormerDetector()
    detector_features: str | None = option(
        None,
        "further features of the dataset (`features` in dataset.yaml) that the detector reads; null: the usual ones",
        neutral=None,
    )
    rounds: int = option(
        2,
        "label, train, detect; each round starts from the last one's detections; 0: the proposer alone",
        ge=0,
        le=bounds.ROUNDS,
        tune=Integer(1, 4),
        why="papers 1; labels hardly change after the third",
    )
    select: Literal["points", "classes", "dev-map", "dev-quality", "test"] = option(
        "points",
        "the score that picks the best round: of points, of the classes of videos (weak), mAP on the dev "
        "videos, or mean tIoU of the pseudo-labels made for them; test leaks and is for reproducing papers only",
    )
    stop: Stop = Stop()
    operating_point: OperatingPoint = OperatingPoint()

    @model_validator(mode="before")
    @classmethod
    def _renamed(cls, data: Any) -> Any:
        return renamed(copy.deepcopy(data))

    @model_validator(mode="after")
    def _goes_together(self) -> Recipe:
        problems = [text for role in (self.proposer, self.labeler, self.detector) for text in role.conflicts(self)]
        if self.operating_point.folds and not self.rounds:
            problems.append("operating_point.folds trains detectors, and with rounds: 0 there is none; leave it at 0")
        if self.detector_features is not None and isinstance(self.detector, Scoring):
            problems += one_grid(self.detector.method, self, "gives labelers snippet scores, which they read on theirs")
        if problems:
            raise ValueError("; ".join(problems))
        return self

    def problems(self, data: Dataset) -> list[str]:
        """Why the recipe cannot be trained on the dataset: on the labels that the training videos have, or on its
        features; nothing if it can."""
        found = [text for method in self._used() for text in method.problems(data)]
        try:
            self.detector_data(data)
        except DataError as error:
            found.append(str(error))
        return found

    def warnings(self, data: Dataset) -> list[str]:
        """Which labels the recipe makes no use of, in words."""
        return [text for method in self._used() for text in method.warnings(data)]

    def detector_data(self, data: Dataset) -> Dataset:
        """The dataset as the detector reads it.

        Raises:
            DataError: it has not the features that the recipe names.
        """
        return data.reading(self.detector_features if self.rounds else None)

    def views(self, data: Dataset, detector: bool = True) -> list[Dataset]:
        """The dataset once for each kind of features that is read; without the detector: up to the first pseudo-labels.

        Raises:
            DataError: as of `detector_data`.
        """
        found = [data] if any(m.reads_features(data) for m in self._used() if m is not self.detector) else []
        if detector and self.rounds and self.detector.reads_features(view := self.detector_data(data)):
            found += [view] if view.read is not None or not found else []
        return found

    def reads_features(self, data: Dataset) -> bool:
        """Whether anything reads the usual features of videos."""
        return any(view.read is None for view in self.views(data))

    def _used(self) -> list[Method]:
        encoder = [self.encoder] if self.encoder is not None else []
        return [self.proposer, *encoder, *([self.labeler, self.detector] if self.rounds else [])]


def recipe_names() -> list[str]:
    """The recipes that come with the package."""
    return sorted(
        p.name.removesuffix(".yaml") for p in resources.files("tad.recipes").iterdir() if p.name.endswith(".yaml")
    )


def load_recipe(name: str, overrides: Sequence[str] = ()) -> Recipe:
    """A recipe by name or path of a YAML file, with `key.path=value` overrides.

    Raises:
        ConfigError: no such recipe, a malformed file or override, or bad values; all of them are listed, unknown keys
            with the closest valid name.
    """
    document = renamed(_read(name))
    problems = []
    for override in overrides:
        try:
            _set(document, override)
            renamed(document)
        except ConfigError as error:
            problems.append(str(error))
    try:
        recipe = Recipe.model_validate(document)
    except ValidationError as error:
        problems += [_explain(e) for e in error.errors()]
        recipe = None
    if problems or recipe is None:
        raise ConfigError(f"recipe {name}: " + listing(problems))
    return recipe


def options(recipe: Recipe) -> dict[str, Any]:
    """Every option of the recipe by its dotted key, methods included."""
    return _flat(recipe.model_dump(), "")


def changed(recipe: Recipe, values: Mapping[str, Any]) -> Recipe:
    """The recipe with other values at some dotted keys, validated like a recipe that is read.

    Raises:
        ConfigError: unknown keys, with the closest valid name, or bad values; all of them are listed.
    """
    document, problems = recipe.model_dump(), []
    for key, value in values.items():
        try:
            _put(document, key, value, key)
            renamed(document)
        except ConfigError as error:
            problems.append(str(error))
    try:
        recipe = Recipe.model_validate(document)
    except ValidationError as error:
        problems += [_explain(e) for e in error.errors()]
    if problems:
        raise ConfigError(listing(problems, most=len(problems)))
    return recipe


def dump(recipe: Recipe) -> str:
    """The whole config as YAML, every default included; loading it gives the same recipe."""
    return yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def _read(name: str) -> dict[str, Any]:
    path = Path(name)
    if name in recipe_names():
        text = resources.files("tad.recipes").joinpath(f"{name}.yaml").read_text(encoding="utf-8")
        document = _numbers(parse_yaml(text, name))
    elif path.suffix in (".yaml", ".yml"):
        if not os.path.exists(path):
            raise ConfigError(f"{path}: no such recipe file")
        try:
            document = _numbers(read_yaml(path))
        except DataError as error:
            raise ConfigError(f"recipe {error}") from None
    elif name == AUTO:
        raise ConfigError("recipe auto: the labels of a dataset decide which it is, in `tad run`; name one here")
    else:
        close = difflib.get_close_matches(name, recipe_names(), 1)
        hint = f"; did you mean {close[0]}?" if close else "."
        raise ConfigError(
            f"no recipe {_short(name)}{hint} Known: {', '.join(recipe_names())}, or the path of a .yaml file"
        )
    if not isinstance(document, dict):
        raise ConfigError(f"recipe {name}: expected a mapping at the top, found {type(document).__name__}")
    return document


_EXPONENT = re.compile(r"[+-]?\d+(\.\d*)?[eE][+-]?\d+")


def _numbers(value: Any) -> Any:
    """YAML 1.1 reads 1e-4 as text; users mean a number."""
    if isinstance(value, str) and _EXPONENT.fullmatch(value):
        return float(value)
    if isinstance(value, list):
        return [_numbers(v) for v in value]
    if isinstance(value, dict):
        return {k: _numbers(v) for k, v in value.items()}
    return value


def _set(document: dict[str, Any], override: str) -> None:
    key, sign, text = override.partition("=")
    name = f"override {_short(override)}"
    if not sign or not key.strip():
        raise ConfigError(f"{name}: write key.path=value, for instance labeler.bag.scales=[0.5,1,1.5]")
    try:
        value = _numbers(parse_yaml(text, "value"))
    except DataError as error:
        reason = str(error).split(": ", 2)[-1].partition("\n")[0]
        raise ConfigError(f"{name}: {_short(text)} is not a YAML value: {reason}") from None
    _put(document, key.strip(), value, name)


def _put(document: dict[str, Any], key: str, value: Any, name: str) -> None:
    *parents, last = key.split(".")
    node = document
    for parent in parents:
        child = node.setdefault(parent, {})
        if not isinstance(child, dict):
            raise ConfigError(f"{name}: {parent} is not a group")
        node = child
    if last == "method" and node.get("method", value) != value:
        node.clear()  # another method's options do not fit
    node[last] = value


def _flat(document: dict[str, Any], prefix: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in document.items():
        found |= _flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name: value}
    return found


def _explain(error: Mapping[str, Any]) -> str:
    """One validation error in words: the key, what is wrong, what was given."""
    place = [str(p) for p in error["loc"]]
    if error["type"] == "extra_forbidden":
        model = _model_at(place[:-1])
        known = list(model.model_fields) if model is not None else []
        close = difflib.get_close_matches(place[-1], known, 1, cutoff=0.5)
        hint = f"did you mean {close[0]}?" if close else f"known here: {', '.join(known)}"
        return f"{_dotted(place)}: unknown key; {hint}"
    message = error["msg"][0].lower() + error["msg"][1:]
    given = error.get("input")
    shown = "" if isinstance(given, (dict, BaseModel)) else f", found {_short(given)}"
    return f"{_dotted(place)}: {message}{shown}"


def _short(value: Any) -> str:
    """A value in an error message: a recipe may hold any amount of it."""
    text = reprlib.repr(value) if isinstance(value, (list, set, tuple)) else repr(value)
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}..."


def _dotted(place: Sequence[str]) -> str:
    """Drops the method that pydantic puts into the path of a role with several methods."""
    return ".".join(p for i, p in enumerate(place) if not (i == 1 and place[0] in ROLES and p in _methods(place[0])))


def _methods(role: str) -> list[str]:
    """Names of the methods that can fill a role."""
    models = _models(Recipe.model_fields[role].annotation)
    return [name for model in models for name in get_args(model.model_fields["method"].annotation)]


def _model_at(place: Sequence[str]) -> type[BaseModel] | None:
    models: list[type[BaseModel]] = [Recipe]
    for name in place:
        tagged = [m for m in models if name in get_args(getattr(m.model_fields.get("method"), "annotation", None))]
        if tagged:
            models = tagged
            continue
        models = [found for m in models if name in m.model_fields for found in _models(m.model_fields[name].annotation)]
    return models[0] if models else None


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    if get_origin(annotation) in (Annotated, Union, types.UnionType):
        for inner in get_args(annotation):
            yield from _models(inner)
    elif isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
