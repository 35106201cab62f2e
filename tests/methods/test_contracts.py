"""What every proposer, labeler and detector must do: drawn from the registered methods, so that none is left out.

A method of an installed package (entry points `tad.methods`) is tested here like those of this one.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from pydantic import BaseModel, ValidationError

from distributed.engine.engine import Engine
from tad.cli import tad
from tad.data.dataset import Dataset
from tad.data.segments import Segments
from tad.methods.common.label_kinds import PointLabeler
from tad.methods.roles import Detector, Labeler, Proposer
from tad.recipe.methods import METHODS, registered, role_of
from tad.recipe.recipe import Recipe
from tad.recipe.rounds import Rounds
from tests.support.tiny import TinyEngine, tiny_dataset

SHORT = {"epochs": 2, "steps": 8, "memory_epochs": 1, "length": 32, "samples": 8, "heads": 4}
"""Options that make a training short, wherever a method has them."""
VARIANTS = [
    (role, name, faithful)
    for role in METHODS
    for name, method in registered(role).items()
    for faithful in ((False, True) if "faithful" in method.model_fields else (False,))
]


def named(variant: Any) -> str:
    role, name, faithful = variant
    return f"{role}-{name}" + ("-faithful" if faithful else "")


def of(*roles: str) -> Any:
    chosen = [variant for variant in VARIANTS if variant[0] in roles]
    return pytest.mark.parametrize("variant", chosen, ids=named)


def short(method: type[BaseModel], faithful: bool = False) -> dict[str, Any]:
    """Options of a config and of its groups that make it short."""
    found: dict[str, Any] = {"faithful": True} if faithful else {}
    for name, field in method.model_fields.items():
        inner = field.annotation
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            found |= {name: short(inner)} if short(inner) else {}
        elif name in SHORT and not faithful:
            found[name] = [1] * len(field.default) if isinstance(field.default, list) else SHORT[name]
    return found


class World:
    """Small datasets with the same videos and different labels, and an engine for each."""

    def __init__(self, folder: Any) -> None:
        points = tiny_dataset(folder / "points", videos=8, classes=2, dim=16, dev=2)
        self.engines: dict[str, Engine] = {}
        for kind in ("points", "full"):
            place = folder / kind
            if kind == "full":
                words = ["labels", str(points.root), str(place), "--mix", "full=0.75,keep=0.25"]
                tad.main(words, standalone_mode=False)
            self.engines[kind] = TinyEngine(Dataset.open(place), 0, folder / f"made-{kind}")
        rows = [(v, 1.0 + i, 4.0 + i, points.classes[i % 2]) for v in points.videos_by_id for i in range(3)]
        video, start, end, label = zip(*rows, strict=True)
        self.path = str(folder / "proposals.json")
        Segments.of(list(video), list(start), list(end), list(label), 0.5).to_json_file(self.path)

    def rounds(self, variant: Any) -> Rounds:
        """The rounds of a recipe with this method, on the first dataset whose labels it takes."""
        role, name, faithful = variant
        method = registered(role)[name]
        options = {"method": name} | short(method, faithful)
        options |= {"path": self.path} if "path" in method.model_fields else {}
        why: list[str] = []
        for proposer in ("snippet", *registered("proposer")) if role != "proposer" else (name,):
            document = {"rounds": 1, "labeler": {"method": "gaufuse"}, "proposer": {"method": proposer}, role: options}
            try:
                recipe = Recipe.model_validate(document | {"proposer": document["proposer"] | short_of(proposer)})
                recipe = Recipe.model_validate(document) if role == "proposer" else recipe
            except ValidationError as error:
                why.append(str(error))
                continue
            for engine in self.engines.values():
                problems = recipe.problems(engine.data)
                if not problems:
                    return Rounds(recipe, engine)
                why += problems
        raise AssertionError(f"no recipe and labels for {named(variant)}: {why}")


def short_of(proposer: str) -> dict[str, Any]:
    return short(registered("proposer")[proposer])


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return World(tmp_path_factory.mktemp("contracts"))


def check_segments(data, artifact, role, some=True):
    """Known videos and classes, inside the video, with finite scores."""
    segments = artifact.segments()
    assert len(segments) or not some
    assert set(segments.codes("video_id")[1]) <= set(data.videos(role))
    assert (segments.label_index(data.classes) >= 0).all()
    ends = np.array([data.duration(v) for v in segments.video_ids])
    assert (segments.start >= 0).all() and (segments.end <= ends + 1e-6).all()
    assert np.isfinite(segments.score).all()
    return segments


@of(*METHODS)
def test_a_method_is_its_config_and_fills_one_role(variant, world):
    """A run's folder keeps the config as plain values; the method comes back from them."""
    role, name, _ = variant
    method = getattr(world.rounds(variant).recipe, role)
    assert type(method) is registered(role)[name] and method.method == name
    assert type(method).model_validate(method.model_dump(mode="json")) == method
    assert role_of(type(method)) == role
    assert isinstance(method, {"proposer": Proposer, "labeler": Labeler, "detector": Detector}[role])


@of(*METHODS)
def test_a_method_says_what_it_cannot_do(variant, world):
    role, _, _ = variant
    rounds = world.rounds(variant)
    method = getattr(rounds.recipe, role)
    for engine in world.engines.values():
        said = [*method.problems(engine.data), *method.warnings(engine.data), *method.conflicts(rounds.recipe)]
        assert all(isinstance(text, str) and text for text in said)


@of("proposer")
def test_a_proposer(variant, world):
    rounds = world.rounds(variant)
    proposer, model, data = rounds.recipe.proposer, rounds.model(0), rounds.engine.data
    for role in ("train", "test"):
        now = rounds.round(0, role)
        scores, embedding = proposer.score(now, model), proposer.embed(now, model)
        for video in data.videos(role):
            length = len(data.features(video))
            if scores is not None:
                cas, background = scores.array("cas", video), scores.array("background", video)
                assert cas.shape == (length, len(data.classes)) and background.shape == (length,)
                assert scores.array("video", video).shape == (len(data.classes),)
                assert (np.asarray(cas) >= 0).all() and (np.asarray(cas) <= 1).all()
            if embedding is not None:
                assert embedding.array("embedding", video).shape[0] == length
        kept = check_segments(data, proposer.propose(now, model), role)
        every = check_segments(data, proposer.propose(now, model, suppressed=False), role)
        assert len(every) >= len(kept) or scores is None or "faithful" in named(variant)


@of("labeler")
def test_a_labeler(variant, world):
    rounds = world.rounds(variant)
    labeler, data = rounds.recipe.labeler, rounds.engine.data
    labels = rounds.labels(1)
    found = check_segments(data, labels.segments, "train", some=False)
    seeds = check_segments(data, rounds.seeds(1), "train", some=False)
    assert labels.ignored is None or check_segments(data, labels.ignored, "train", some=False) is not None
    assert labels.statistics is None or labels.statistics()
    assert all(source.endswith("@1") for source in found.codes("source")[1])
    if isinstance(labeler, PointLabeler):
        for role, rows in (("train", found), ("train", seeds), ("dev", rounds.labels(1, "dev").segments.segments())):
            want = [
                (video, data.classes[c], round(float(t), 6))
                for video in data.videos(role)
                for t, c in zip(*data.points(video), strict=True)
            ]
            assert sorted((r["video_id"], r["label"], round(r["point"], 6)) for r in rows.rows()) == sorted(want)


@of("detector")
def test_a_detector(variant, world):
    rounds = world.rounds(variant)
    assert rounds.model(1).model()["settings"]
    for role in ("train", "test"):
        found = check_segments(rounds.engine.data, rounds.detections(1, role), role, some=False)
        most = getattr(getattr(rounds.recipe.detector, "decode", None), "max_detections", None)
        if most is not None and len(found):
            assert np.bincount(found.codes("video_id")[0]).max() <= most
    again = Rounds(rounds.recipe, rounds.engine)
    assert again.detections(1, "test").fingerprint == rounds.detections(1, "test").fingerprint
