"""The recipes of PseR as published: which labeler, what the released run pulls from where, and tiny runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from tad.data.dataset import Dataset
from tad.methods.pser.labeler import PserLabeler
from tad.recipe.recipe import load_recipe, options
from tad.recipe.rounds import Rounds
from tests.support.tiny import TinyEngine, tiny_dataset

PUBLISHED = ("pser-released", "pser-gtea", "pser-beoid", "pser-anet")
SMALL = [
    "proposer.training.epochs=1",
    "labeler.heads.hidden=8",
    "labeler.heads.epochs=1",
    "detector.training.width=16",
    "detector.training.levels=3",
    "detector.training.max_length=64",
    "detector.training.epochs=1",
]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return tiny_dataset(tmp_path_factory.mktemp("pser") / "data", videos=4, classes=2, dim=8, finer=4)


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_labeler_is_the_published_one(name: str) -> None:
    recipe = load_recipe(name)
    assert isinstance(recipe.labeler, PserLabeler) and recipe.labeler.faithful and recipe.labeler.refine == "bag"
    assert recipe.rounds == 1 and recipe.detector.method == "actionformer"
    published = options(load_recipe("pser", ["labeler.faithful=true"]))
    other = {k for k, v in options(recipe).items() if k.startswith("labeler.") and v != published[k]}
    assert other <= {"labeler.heads.batch_size", "labeler.heads.epochs"}, "which depend on the number of videos"


@pytest.mark.parametrize("dataset", ["gtea", "beoid", "anet"])
def test_proposers_of_other_datasets_are_those_of_hrpro(dataset: str) -> None:
    assert load_recipe(f"pser-{dataset}").proposer == load_recipe(f"hrpro-{dataset}").proposer


def test_the_released_run_learns_as_lacp_and_proposes_by_its_own_rules() -> None:
    released, lacp = load_recipe("pser-released"), load_recipe("lacp")
    learnt = {k: v for k, v in released.proposer.training.model_dump().items() if "weight" in k or k == "epochs"}
    assert learnt == {k: lacp.proposer.training.model_dump()[k] for k in learnt}
    assert (released.proposer.candidates.suppression, released.proposer.candidates.iou_threshold) == ("nms", 0.7)
    assert released.encoder.method == "hrpro" and released.encoder.faithful


@pytest.mark.parametrize("name", PUBLISHED)
def test_they_run(name: str, data: Dataset, tmp_path: Path) -> None:
    more = ["encoder.training.epochs=1"] if name == "pser-released" else []
    recipe = load_recipe(name, [*SMALL, *more])
    rounds = Rounds(recipe, TinyEngine(data, 0, tmp_path))
    labels = rounds.labels(1).segments.segments()
    assert len(labels) == data.point_count("train")
    found = rounds.detections(1, "test").segments()
    assert set(found.video_ids) <= set(data.videos("test"))
    assert rounds.round(1).of_detector.data.read == ("finer" if name == "pser-released" else None)
