"""`rounds: 0`: the proposer alone is a run like any other, with a report, and without what only labelers need."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from distributed.run.session import Options, self_train
from distributed.run.trained import trained
from tad.data.dataset import Dataset
from tad.data.segments import Segments
from tad.errors import RunError
from tad.recipe.recipe import load_recipe
from tests.support.page import Page
from tests.support.tiny import RECIPE, tiny_dataset

pytest_plugins = ["tests.support.tracked"]
RECIPE_0 = ["rounds=0"]


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Dataset:
    return tiny_dataset(tmp_path_factory.mktemp("zero") / "data", videos=6, classes=2, dim=12)


@pytest.fixture(scope="module")
def run(data, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("alone")
    self_train("tiny", load_recipe(RECIPE, RECIPE_0), data, Options(folder / "run", folder / "store", local=True))
    return folder / "run"


def rows_of(run: Path) -> list[dict]:
    return json.loads((run / "rounds.json").read_text())


def stages_of(run: Path) -> list[str]:
    events = map(json.loads, (run / "events.jsonl").read_text().splitlines())
    return [e["name"] for e in events if e["kind"] in ("stage", "stage-cached")]


def test_it_ends_with_the_proposals_measured_on_the_test_videos(run, data):
    document, (row,) = json.loads((run / "run.json").read_text()), rows_of(run)
    assert document["state"] == "finished" and document["best_round"] == 0 == row["round"] and row["selected"]
    found = Segments.from_parquet(run / "round-0" / "proposals-test.parquet")
    assert set(found.codes("video_id")[1]) == set(data.videos("test"))
    assert 0 < row["test_map"]["average"] <= 1 and row["labels"] is None
    assert sorted(p.name for p in run.iterdir() if p.is_dir()) == ["round-0"]


def test_it_runs_no_stage_that_only_a_labeler_reads(run):
    """The tiny recipe's labeler wants an embedding; rows and boundaries are of the score of points."""
    of_score = {"pser/rows", "pser/boundaries"}
    assert set(stages_of(run)) == {"snippet/train", "snippet/score", "snippet/propose"} | of_score


def test_the_report_shows_the_proposer_and_claims_no_selection(run):
    page = (run / "report.html").read_text()
    text = re.sub(r"\s+", " ", Page(page).text)
    assert "The proposer alone: no round of self-training was asked for" in text
    first = re.search(r'<ul class="tiles">\s*<li>(.*?)</li>', page).group(1)
    value = 100 * rows_of(run)[0]["test_map"]["average"]
    assert re.sub(r"<.*?>", "|", first) == f"|{value:.1f} %||mAP on test videos||the proposer alone|"
    assert "Best round" not in text and "confident proposals" in text and "confident detections" not in text


def test_the_same_command_again_trains_nothing(run, data, tmp_path):
    events = len(stages_of(run))
    before = rows_of(run)[0]["test_map"]
    store = json.loads((run / "run.json").read_text())["store"]
    self_train("tiny", load_recipe(RECIPE, RECIPE_0), data, Options(run, store, local=True))
    lines = [json.loads(line) for line in (run / "events.jsonl").read_text().splitlines()]
    again = [e["kind"] for e in lines if e["kind"] in ("stage", "stage-cached")][events:]
    assert again and set(again) == {"stage-cached"}
    assert rows_of(run)[0]["test_map"] == before


def test_rounds_can_be_added_in_another_folder_and_the_proposer_is_kept(run, data, tmp_path):
    store = json.loads((run / "run.json").read_text())["store"]
    recipe = load_recipe(RECIPE, ["rounds=1", "labeler.method=pser-seed", "detector.training.epochs=1"])
    with pytest.raises(RunError, match="holds another run"):
        self_train("tiny", recipe, data, Options(run, store, local=True))
    self_train("tiny", recipe, data, Options(tmp_path / "run", store, local=True))
    assert rows_of(tmp_path / "run")[0]["model"] == rows_of(run)[0]["model"]
    first = Segments.from_parquet(tmp_path / "run" / "round-0" / "proposals-test.parquet")
    assert first.digest() == Segments.from_parquet(run / "round-0" / "proposals-test.parquet").digest()


@pytest.mark.parametrize("number", [None, 0])
def test_without_a_detector_the_user_is_told_where_the_proposals_are(run, data, number):
    with pytest.raises(RunError, match=r"no detector of round 0.*round-0\. For a detector .* --rounds 1"):
        trained(run, data, number, run.parent / "store")


def test_selecting_on_the_test_videos_leaks_nothing_when_nothing_is_selected(data, tmp_path):
    recipe = load_recipe(RECIPE, [*RECIPE_0, "select=test", "proposer.training.epochs=1"])
    self_train("tiny", recipe, data, Options(tmp_path / "run", tmp_path / "store", local=True))
    page = (tmp_path / "run" / "report.html").read_text()
    assert "leak" not in page and "selected by it" not in page
    assert "warning" not in (tmp_path / "run" / "events.jsonl").read_text()


@pytest.mark.ray
def test_mlflow_has_the_proposals_and_their_map(run, data, database, tmp_path):
    from mlflow import MlflowClient

    uri = f"sqlite:///{database}"
    options = Options(tmp_path / "run", run.parent / "store", local=True, tracking=uri)
    self_train("tiny", load_recipe(RECIPE, RECIPE_0), data, options)
    client = MlflowClient(uri)
    (experiment,) = [e for e in client.search_experiments() if e.name == data.name]
    runs = {r.info.run_name: r for r in client.search_runs([experiment.experiment_id])}
    whole = runs["tiny seed 0"]
    assert whole.info.status == runs["round 0"].info.status == "FINISHED"
    assert whole.data.metrics["test/average"] == pytest.approx(rows_of(run)[0]["test_map"]["average"])
    assert {"report.html", "proposals-test.parquet"} <= {a.path for a in client.list_artifacts(whole.info.run_id)}
