"""The stage that a parameter declares is the first that a change of it runs again."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import optuna
import pytest
import torch

from distributed.engine.engine import Engine
from distributed.engine.record import Record
from distributed.engine.store import Store
from distributed.run.selftrain import SelfTraining
from search_spaces.load import families
from search_spaces.ranges import suggest
from search_spaces.space import STAGES, Parameter
from tad.data.labels import FullLabels
from tad.data.segments import Segments
from tad.methods.actionformer.detector import TrainStage
from tad.methods.apl.contrastive_pyramid import ContrastiveTrain
from tad.recipe.recipe import changed, load_recipe, options
from tad.recipe.rounds import Rounds
from tad.stages import Artifact, Context
from tests.support.spaces import RECIPES, space_of, spaces
from tests.support.tiny import TinyEngine, tiny_dataset

optuna.logging.set_verbosity(optuna.logging.ERROR)

STAGE_OF = {
    "snippet/train": "proposer",
    "hrpro/train": "proposer",
    "rskp/train": "proposer",
    "actionformer/propose": "proposals",
    "actionformer/labelled": "proposer",
    "contrastive/train": "proposer",
    "snippet/propose": "proposals",
    "rskp/propose": "proposals",  # of a later round: detections
    "pser/heads": "heads",
    "pser/rows": "heads",
    "pser/boundaries": "heads",
    "pser/believed": "labels",
    "pser/seed": "labels",
    "pser/refine": "labels",
    "hrpro/rank": "labels",
    "potloc/label": "labels",
    "points/label": "labels",
    "gaufuse/seed": "labels",
    "gaufuse/fuse": "labels",
    "apl/icd": "heads",
    "apl/select": "labels",
    "apl/label": "labels",
    "rskp/targets": "detector",
    "rskp/retrain": "detector",
    "hrpro-instance/negatives": "detector",
    "actionformer/train": "detector",
    "hrpro-instance/train": "detector",
    "potloc/train": "detector",
    "bmn/pretrain": "detector",
    "bmn/train": "detector",
    "actionformer/detect": "detections",
    "hrpro-instance/detect": "detections",
    "potloc/detect": "detections",
    "bmn/detect": "detections",
}
"""Stages of the code by the tier of a space; scores and embeddings follow the proposer and have no options."""


class Keys(Engine):
    """Names the artifacts that a recipe needs, under their real fingerprints, without making any.

    What methods read before a stage is run is there: segments, the same of every stage, and untrained pyramids.
    """

    def __init__(self, *parts) -> None:
        super().__init__(*parts)
        self.needed: dict[str, tuple[int, str]] = {}
        videos = self.data.videos("train")
        ends = np.full(len(videos), 9.0)
        labels = Segments.of(videos, ends - 8, ends, [self.data.classes[0]] * len(videos))
        labels.to_parquet(self.record.folder / "segments.parquet")
        self.segments = (self.record.folder / "segments.parquet").read_bytes()

    def fit(self, stage, inputs=None, number=0):
        artifact = self.map(stage, inputs, "train", number)
        if isinstance(stage, (TrainStage, ContrastiveTrain)) and not (artifact.path / "model.pt").exists():
            task = stage.open(Context(self.data, inputs or {}, self.data.videos("train"), self.seed))
            torch.save({"state": task.module.state_dict(), "settings": task.settings}, artifact.path / "model.pt")
        return artifact

    def map(self, stage, inputs=None, role="train", number=0):
        key, _ = self._key(stage, inputs or {}, role, number)
        self.needed[key] = (number, stage.name)
        artifact = Artifact(key, self.store.root / key)
        if not artifact.path.exists():
            artifact.path.mkdir(parents=True)
            (artifact.path / "segments.parquet").write_bytes(self.segments)
        return artifact


def needed(recipe, engine: Keys) -> dict[str, tuple[int, str]]:
    """Round and stage by fingerprint, as self-training asks for them."""
    engine.needed, rounds = {}, Rounds(recipe, engine)
    for number in range(1, recipe.rounds + 1):
        rounds.seeds(number)
        rounds.detections(number, "train")
    return engine.needed


def first_stage(before: dict, after: dict, rounds: int) -> str:
    """The first tier of the first round in which something is newly needed that was there before."""
    again = [
        (number, STAGES.index("detections" if number and name == "rskp/propose" else STAGE_OF[name]))
        for key, (number, name) in after.items()
        if key not in before and name in STAGE_OF and number <= rounds
    ]
    return STAGES[min(again)[1]] if again else "round"


def another(p: Parameter, value):
    """A value of the range that is not the recipe's."""
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    return next(v for _ in range(50) if (v := suggest(p.range, study.ask(), p.key)) != value)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    found = tiny_dataset(tmp_path_factory.mktemp("stages") / "data", videos=6, classes=2, dim=16)
    full = dict.fromkeys(found.videos("train")[:2], FullLabels(np.array([[1.0, 9.0]]), np.zeros(1, dtype=np.int64)))
    return replace(found, full_by_id=full)


@pytest.fixture(scope="module")
def engine(data, tmp_path_factory) -> Keys:
    folder = tmp_path_factory.mktemp("keys")
    return Keys(data, Store(folder / "store"), Record(folder / "run"))


@pytest.mark.parametrize(("family", "name"), spaces())
def test_the_declared_stage_is_the_first_that_a_change_runs_again(family, name, engine):
    recipe = load_recipe(*RECIPES[name])
    before, base = needed(recipe, engine), options(recipe)
    for p in space_of(family, name).parameters:
        start = recipe
        if p.when is not None and not p.wants(base[p.when[0]]):
            key, wanted = p.when  # set the condition first
            start = changed(recipe, {key: wanted[0] if isinstance(wanted, tuple) else wanted})
        after = needed(changed(start, {p.key: another(p, base[p.key])}), engine)
        compared = before if start is recipe else needed(start, engine)
        assert first_stage(compared, after, recipe.rounds) == p.stage, p.key


def test_real_runs_repeat_what_the_keys_say(tmp_path):
    """One change for each stage, run for real on one store: the record names the stages that were not there."""
    data = tiny_dataset(tmp_path / "data", videos=4, classes=2, dim=8)
    tiny = [
        "labeler.refine=bag",
        "proposer.training.epochs=3",
        "labeler.heads.epochs=3",
        "detector.training.epochs=3",
        "rounds=1",
    ]
    recipe = load_recipe("pser", [*tiny, "labeler.heads.project=8", "labeler.heads.hidden=16"])

    def ran(name: str, values: dict) -> set[str]:
        engine = TinyEngine(data, 0, tmp_path)
        engine.record = Record(tmp_path / name)
        SelfTraining(changed(recipe, values), engine, {"scores": {}}).score()
        events = [json.loads(line) for line in (tmp_path / name / "events.jsonl").read_text().splitlines()]
        return {e["name"] for e in events if e["kind"] == "stage"}

    of_none = {"snippet/score", "snippet/embed"}
    assert set(STAGE_OF) >= ran("base", {}) - of_none and not ran("again", {})
    declared = {p.key: p for family in families() if (s := space_of(family, "bag")) for p in s.parameters}
    for key, value in {
        "proposer.training.dropout": 0.5,
        "proposer.candidates.margin": 0.3,
        "labeler.negatives.count": 20,
        "labeler.merge.rank_power": 2.0,
        "detector.training.drop_path": 0.2,
        "detector.postprocess.sigma": 0.3,
        "stop.change": 0.9,
    }.items():
        stages = {STAGE_OF[name] for name in ran(key, {key: value}) if name in STAGE_OF}
        expected = declared[key].stage if key in declared else "round"
        assert min(stages, key=STAGES.index, default="round") == expected, key
