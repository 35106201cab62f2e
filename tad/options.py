"""Options: all that there is to say of one stands once, on its field.

    lr: bounds.Rate | None = option(
        None, "peak; null: 1e-4 for width 512 and batches of 2, more for narrower or larger",
        tune=Float(3e-5, 3e-3, log=True), why="ActionFormer 1e-4 for width 512; narrower want more", stand_in=4e-4,
    )

Recipes, `tad recipes show --explain`, the reference page, `faithful: true`, search spaces and fingerprints read it
there. A field that holds a whole group of options may be a `group`, where the place changes something.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any, Literal, get_args

from pydantic import BaseModel, Field
from pydantic.fields import FieldInfo

from tad.ranges import Range

log = logging.getLogger(__name__)

Stage = Literal["proposer", "proposals", "heads", "labels", "detector", "detections", "round"]
STAGES: tuple[Stage, ...] = get_args(Stage)
"""From the first to the last of a round, so from dear to cheap: what comes before a stage is shared by trials.
Rounds after the first that changes are all new, as they start from its detections.

proposer: its model is trained again. proposals: its answers are read again, and all that learns from proposals.
heads: the labeler's heads are trained again. labels: pseudo-labels are made again, and the detector trained on them.
detector: trained again. detections: made again by the trained detector. round: finished rounds stay as they are.
"""


class Unsaid:
    """Stands for a value that is not given, where null is a value."""


class Said:
    """Stands on a pydantic field as its `json_schema_extra`, and adds nothing to the JSON schema."""

    def __call__(self, schema: Any) -> None:
        pass


@dataclass(frozen=True)
class Option(Said):
    """What is said of an option beside its type, default, bounds and meaning; see `option`."""

    paper: Any = Unsaid
    free: bool = False
    tune: Range | None = None
    why: str = ""
    stand_in: Any = None
    when: tuple[str, Any] | None = None
    neutral: Any = Unsaid
    formerly: str = ""
    old_words: Mapping[Any, str] = field(default_factory=dict)

    @property
    def new_words(self) -> dict[str, Any]:
        """The present value by the word that it had."""
        return {old: new for new, old in self.old_words.items()}


@dataclass(frozen=True)
class Group(Said):
    """What a place changes of a group of options; see `group`."""

    stage: Stage | None = None
    paper: Mapping[str, Any] = field(default_factory=dict)
    free: Collection[str] = ()
    tune: Mapping[str, Range] = field(default_factory=dict)
    when: Mapping[str, tuple[str, Any]] = field(default_factory=dict)
    only: tuple[str, Any] | None = None


def option(
    default: Any,
    meaning: str,
    *,
    paper: Any = Unsaid,
    free: bool = False,
    tune: Range | None = None,
    why: str = "",
    stand_in: Any = None,
    when: tuple[str, Any] | None = None,
    neutral: Any = Unsaid,
    formerly: str = "",
    old_words: Mapping[Any, str] | None = None,
    **limits: Any,
) -> Any:
    """The field of one option.

    Args:
        default: its value where the recipe says nothing.
        meaning: one sentence; of values that need it, what each does.
        paper: what the published code has; `faithful: true` sets it.
        free: with `faithful: true` another value may be given all the same, as it depends on the data.
        tune: the values worth searching.
        why: one line, the reason for `tune`.
        stand_in: what a search takes null for, where null means a value derived from the data.
        when: another option and its value, or a tuple of its values, at which this one matters; one of the same group
            by its name, others by their whole key ("labeler.method").
        neutral: of an option added later: the value that changes nothing. At it the option is left out of fingerprints,
            so what was made before it was added is still found.
        formerly: the name that it had in the last version. Recipes may still give it; fingerprints and studies keep it.
        old_words: the same of its values: the former word by the present one.
        limits: as of pydantic's Field: gt, ge, lt, le, multiple_of, min_length, max_length.
    """
    said = Option(paper, free, tune, why, stand_in, when, neutral, formerly, old_words or {})
    return Field(default=default, description=meaning, json_schema_extra=said, **limits)


def again(model: type[BaseModel], name: str, default: Any = Unsaid, meaning: str = "", **changes: Any) -> Any:
    """The field of an option that another group has, too, with another default, meaning or what else `option` takes."""
    info = model.model_fields[name]
    said = info.json_schema_extra
    assert isinstance(said, Option)
    return Field(
        default=info.default if default is Unsaid else default,
        description=meaning or info.description,
        json_schema_extra=replace(said, **changes),
    )


def group(
    default: BaseModel,
    *,
    stage: Stage | None = None,
    paper: Mapping[str, Any] | BaseModel | None = None,
    free: Collection[str] = (),
    tune: Mapping[str, Range] | None = None,
    when: Mapping[str, tuple[str, Any]] | None = None,
    only: tuple[str, Any] | None = None,
) -> Any:
    """The field of a group of options, where its place differs from what the options say of themselves.

    Args:
        default: the group.
        stage: the first that a change of the group runs again; None: that of the group around it, of a role the first.
        paper: other published values, by the option's name; a whole group gives all of them.
        free: the options that may be given another value with `faithful: true`, beside those marked so.
        tune: other ranges, by the option's name.
        when: another option and its value at which an option matters, by the option's name.
        only: an option beside the group, and its value at which the group matters at all.
    """
    values = paper.model_dump() if isinstance(paper, BaseModel) else paper or {}
    said = Group(stage, values, tuple(free), tune or {}, when or {}, only)
    return Field(default=default, json_schema_extra=said)


@dataclass(frozen=True)
class Declared:
    """An option at its place.

    Attributes:
        key: dotted, from the model where the walk began.
        info: the field.
        said: what the option and the groups around it say; `when` with its whole key.
        stage: the first that a change runs again.
        owner: the group that has it.
    """

    key: str
    info: FieldInfo
    said: Option
    stage: Stage
    owner: type[BaseModel]


def declared(model: type[BaseModel], stage: Stage, prefix: str = "", at: Group | None = None) -> Iterator[Declared]:
    """Every option of a model and of the groups in it, in the order of the fields; also plain ones with a description.

    Args:
        model: a group, or a role.
        stage: of its options, if no group says another.
        prefix: of the keys, with a dot at its end.
        at: what the place of the model changes.
    """
    at = at or Group()
    for name, info in model.model_fields.items():
        said, inner = info.json_schema_extra, group_of(info)
        if inner is not None:
            place = said if isinstance(said, Group) else Group()
            only = (f"{prefix}{place.only[0]}", place.only[1]) if place.only else at.only
            place = replace(place, paper=_below(at.paper, name) | dict(place.paper), only=only)
            yield from declared(inner, place.stage or stage, f"{prefix}{name}.", place)
        elif isinstance(said, Option) or info.description:
            own = said if isinstance(said, Option) else Option()
            yield Declared(f"{prefix}{name}", info, _placed(own, name, prefix, model, at), stage, model)


def group_of(info: FieldInfo) -> type[BaseModel] | None:
    """The group that a field holds; None if it is an option or one of several roles."""
    kind = info.annotation
    return kind if isinstance(kind, type) and issubclass(kind, BaseModel) else None


def current(model: type[BaseModel], data: Any, prefix: str = "") -> Any:
    """The input of a model with the present names and words of options that had others in the last version.

    Where both names are given the last one counts, as an override comes after what it overrides.

    Args:
        model: what the input is for.
        data: the raw input, before validation.
        prefix: of the keys in the warning that names the present ones.
    """
    if not isinstance(data, Mapping):
        return data
    names = former_names(model)
    found: dict[str, Any] = {}
    for key, value in data.items():
        name = names.get(key, key)
        info = model.model_fields.get(name)
        said = info.json_schema_extra if info is not None else None
        words = said.new_words if isinstance(said, Option) else {}
        if info is not None and (inner := group_of(info)) is not None:
            value = current(inner, value, f"{prefix}{name}.")
        new = words.get(value, value) if isinstance(value, str) else value
        if name != key or new is not value:
            _warn(f"{prefix}{key}", f"{prefix}{name}", "" if new is value else f": {value} is now {new}")
        found.pop(name, None)
        found[name] = new
    return found


def published(model: type[BaseModel], data: Any) -> Any:
    """The input of a model with the papers' values filled in, if it says `faithful: true`.

    Args:
        model: has an option `faithful`, or the input is returned as it is.
        data: the raw input, before validation.

    Raises:
        ValueError: an option is given that contradicts its published value; lists all of them.
    """
    if "faithful" not in model.model_fields or not isinstance(data, Mapping) or data.get("faithful") is not True:
        return data
    filled, problems = _plain(data), []
    for one in declared(model, "round"):
        if one.said.paper is Unsaid:
            continue
        *groups, name = one.key.split(".")
        node = filled
        for part in groups:
            node = node.setdefault(part, {}) if isinstance(node, dict) else None
        if not isinstance(node, dict):
            continue  # of a wrong type: left to the validation of the group
        given = node.setdefault(name, one.said.paper)
        if given != one.said.paper and not one.said.free:
            problems.append(f"{one.key} to {one.said.paper!r}, found {given!r}")
    if problems:
        raise ValueError(
            "faithful: true sets " + "; ".join(problems) + ". Drop these options, or faithful and set each yourself"
        )
    return filled


def identity(config: BaseModel) -> dict[str, Any]:
    """The config as it goes into fingerprints: its dump without later options that are at their neutral value, with
    those that its class had `formerly` (a mapping of options to values) at theirs, and under the names and words that
    options had when they were added."""
    return _known(config.model_dump(), config)


def _known(dump: dict[str, Any], config: BaseModel) -> dict[str, Any]:
    kept: dict[str, Any] = dict(getattr(config, "formerly", {}))
    for name, value in dump.items():
        said, own = type(config).model_fields[name].json_schema_extra, getattr(config, name)
        if isinstance(own, BaseModel):
            kept[name] = _known(value, own)
        elif not isinstance(said, Option):
            kept[name] = value
        elif said.neutral is Unsaid or value != said.neutral:
            kept[said.formerly or name] = said.old_words.get(value, value) if isinstance(value, str) else value
    return kept


@cache
def former_names(model: type[BaseModel]) -> Mapping[str, str]:
    """The present names of a model's options by those of the last version."""
    said = {name: info.json_schema_extra for name, info in model.model_fields.items()}
    return {one.formerly: name for name, one in said.items() if isinstance(one, Option) and one.formerly}


@cache  # once for each
def _warn(old: str, new: str, words: str) -> None:
    log.warning("the option %s is now named %s%s; the old name works in this version alone", old, new, words)


def _placed(said: Option, name: str, prefix: str, model: type[BaseModel], at: Group) -> Option:
    """What is said of an option, with what its place changes."""
    tune = at.tune.get(name, said.tune)
    when = at.when.get(name, said.when) or (at.only if tune is not None else None)
    if when is not None and when[0].partition(".")[0] in model.model_fields:
        when = (prefix + when[0], when[1])
    return replace(said, paper=at.paper.get(name, said.paper), free=said.free or name in at.free, tune=tune, when=when)


def _below(values: Mapping[str, Any], name: str) -> dict[str, Any]:
    inner = values.get(name)
    return dict(inner) if isinstance(inner, Mapping) else {}


def _plain(data: Any) -> Any:
    """Mappings and groups as dicts of what was given."""
    if isinstance(data, BaseModel):
        data = data.model_dump(exclude_unset=True)
    return {key: _plain(value) for key, value in data.items()} if isinstance(data, Mapping) else data
