"""The scores that select: what a search computes is what a run computes, from no more than it may read."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from distributed.engine.engine import Engine
from distributed.run.selftrain import SelfTraining
from distributed.run.session import Options, self_train
from tad.data.dataset import Dataset
from tad.data.segments import Segments
from tad.errors import DataError, RunError
from tad.evaluation.quality_by_point import label_quality
from tad.prepare.relabel import derive_labels, draw_kinds, one_kind
from tad.prepare.split import split_holdout
from tad.recipe.recipe import Recipe, load_recipe
from tad.report.budget import label_budget
from tad.selection.best_round import best_round
from tad.selection.label_free_scores import classes_score
from tests.support.tiny import RECIPE, TinyEngine, tiny_dataset

SELECTED = {"points": "points", "classes": "classes", "dev-map": "dev_map", "dev-quality": "dev_quality"}


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Dataset:
    """Training, dev and test videos, and hidden points."""
    folder = tmp_path_factory.mktemp("scores")
    split_holdout(tiny_dataset(folder / "whole", videos=9, classes=2, dim=12), 0.3, 0.2, 0, folder / "data")
    return Dataset.open(folder / "data")


def recipe(select: str, *more: str) -> Recipe:
    return load_recipe(RECIPE, [f"select={select}", *more])


def trained(recipe: Recipe, data: Dataset, folder: Path, **more: object) -> tuple[float, SelfTraining]:
    engine = TinyEngine(data, 0, folder)
    training = SelfTraining(recipe, engine, {"scores": {}}, **more)  # type: ignore[arg-type]
    return training.score(), training


def stages(engine: Engine) -> list[tuple[str, str, str]]:
    """Name, role and round of each stage that ran."""
    lines = (engine.record.folder / "events.jsonl").read_text().splitlines()
    events = [json.loads(line) for line in lines]
    return [(e["name"], e["role"], e["round"]) for e in events if e["kind"] == "stage-done"]


@pytest.fixture(scope="module")
def runs_store(tmp_path_factory) -> Path:
    """What runs of the same stages share; searches train theirs anew."""
    return tmp_path_factory.mktemp("runs") / "store"


@pytest.mark.parametrize("select", SELECTED)
def test_a_search_and_a_run_get_the_same_number(data, runs_store, tmp_path, select):
    value, training = trained(recipe(select), data, tmp_path / "search")
    assert not [s for s in stages(training.engine) if s[1] == "test"]
    assert not list((tmp_path / "search" / "run").rglob("*.png")), "a search draws nothing"
    self_train("tiny", recipe(select), data, Options(tmp_path / "out", runs_store, local=True))
    rows = json.loads((tmp_path / "out" / "rounds.json").read_text())
    (best,) = [row for row in rows if row["selected"]]
    assert best["scores"][SELECTED[select]] == value > 0
    assert best["round"] == training.document["best_round"]
    assert value == max(row["scores"][SELECTED[select]] for row in rows[1:])
    assert all(row["test_map"] for row in rows)


def test_dev_labels_come_from_what_was_trained_on_training_videos(data, tmp_path):
    value, training = trained(recipe("dev-quality"), data, tmp_path)
    fits = [s for s in stages(training.engine) if s[0] in ("snippet/train", "pser/heads", "actionformer/train")]
    assert {role for _, role, _ in fits} == {"train"}
    assert [(name, number) for name, _, number in fits] == [
        ("snippet/train", "0"),
        ("pser/heads", "1"),
        ("actionformer/train", "1"),
        ("pser/heads", "2"),  # the last round's detector is not needed
    ]
    assert training.rows[-1]["model"] is None and training.rows[1]["model"] is not None
    measured = []
    for number in (1, 2):
        labels = Segments.from_parquet(training.engine.record.folder / f"round-{number}" / "labels-dev.parquet")
        points = {(v, float(t)) for v in data.videos("dev") for t in data.points(v).time}
        assert set(zip(labels.video_ids, labels.point.tolist(), strict=True)) == points
        measured.append(label_quality(labels, data, "dev").to_json()["mean_tiou"])
    assert measured == [row["scores"]["dev_quality"] for row in training.rows[1:]] and max(measured) == value


def test_dev_labels_are_not_computed_unless_they_select(data, tmp_path):
    _, training = trained(recipe("dev-map", "rounds=1"), data, tmp_path)
    assert training.rows[1]["scores"]["dev_quality"] is None
    assert ("pser/refine", "dev", "1") not in stages(training.engine)


@pytest.mark.parametrize("method", ["pser-seed", "hrpro", "potloc", "points"])
def test_every_labeler_labels_dev_videos(data, tmp_path, method):
    value, _ = trained(recipe("dev-quality", "rounds=1", f"labeler.method={method}"), data, tmp_path)
    assert 0.1 < value <= 1


def test_a_search_reads_no_annotation_of_test_videos(data, tmp_path):
    """They are broken here: a run refuses them, a search does not notice."""
    broken = tmp_path / "data"
    broken.mkdir()
    for name in ("dataset.yaml", "points.csv", "held_out.csv"):
        (broken / name).write_bytes((data.root / name).read_bytes())
    (broken / "features").symlink_to(data.root / "features")
    document = json.loads((data.root / "annotations.json").read_text())
    for video in data.videos("test"):
        document["database"][video]["annotations"] = [{"label": "nonsense", "segment": [9, 1]}]
    (broken / "annotations.json").write_text(json.dumps(document))
    fast = recipe("dev-map", "rounds=1", "labeler.method=pser-seed")
    assert trained(fast, Dataset.open(broken), tmp_path / "a")[0] == trained(fast, data, tmp_path / "b")[0]
    with pytest.raises(DataError, match="nonsense"):
        SelfTraining(fast, TinyEngine(Dataset.open(broken), 0, tmp_path / "c"), {"scores": {}}).run()


def test_a_watcher_sees_each_round_and_can_stop(data, tmp_path):
    class Stop(Exception):
        pass

    seen: list[int] = []

    def watch(row):
        seen.append(row["round"])
        if row["round"] == 1:
            raise Stop

    with pytest.raises(Stop):
        trained(recipe("points", "labeler.method=pser-seed"), data, tmp_path, watch=watch)
    assert seen == [0, 1]
    assert [r["round"] for r in json.loads((tmp_path / "run" / "rounds.json").read_text())] == [0, 1]


def test_without_rounds_the_proposer_is_scored(data, tmp_path):
    value, training = trained(recipe("dev-map", "rounds=0"), data, tmp_path)
    assert value == training.rows[0]["scores"]["dev_map"]


def refusal(recipe: Recipe, data: Dataset, folder: Path) -> str:
    engine = TinyEngine(data, 0, folder)
    with pytest.raises(RunError) as error:
        SelfTraining(recipe, engine, {"scores": {}}).score()
    assert not stages(engine), "nothing was trained"
    return str(error.value)


def test_what_a_score_needs_is_checked_before_training(data, tmp_path):
    said = refusal(recipe("dev-quality", "rounds=0"), tiny_dataset(tmp_path / "bare", videos=4), tmp_path)
    assert "videos with the role dev" in said and "tad split --dev" in said and "set rounds to 1 or more" in said
    assert "never does; use dev-map, points or classes" in refusal(recipe("test"), data, tmp_path)
    blind = tmp_path / "blind"
    blind.mkdir()
    (blind / "dataset.yaml").write_bytes((data.root / "dataset.yaml").read_bytes())
    (blind / "held_out.csv").write_bytes((data.root / "held_out.csv").read_bytes())
    dev = set(data.videos("dev"))
    document = json.loads((data.root / "annotations.json").read_text())
    for video in dev:
        document["database"][video]["annotations"] = []
    (blind / "annotations.json").write_text(json.dumps(document))
    lines = (data.root / "points.csv").read_text().splitlines()
    (blind / "points.csv").write_text("\n".join(x for x in lines if x.split(",")[0] not in dev) + "\n")
    said = refusal(recipe("dev-quality"), Dataset.open(blind), tmp_path)
    assert f"annotated segments of the {len(dev)} dev videos" in said and "needs points of the dev videos" in said
    (blind / "points.csv").write_text(lines[0] + "\n")
    said = refusal(recipe("points"), Dataset.open(blind), tmp_path)
    assert "no training video has a point" in said and "`--set select=classes`" in said
    assert "labels.csv lists them" in refusal(recipe("classes"), Dataset.open(blind), tmp_path)


def test_of_equal_rounds_the_first_is_best_and_by_classes_the_last():
    rows = [{"scores": {"points": v, "classes": v, "dev_map": v}} for v in (0.9, 0.5, 0.7, 0.7, 0.6)]
    assert best_round(rows, "points") == best_round(rows, "dev-map") == 2
    assert best_round(rows, "classes") == 3 and best_round(rows[:2], "classes") == 1


def test_a_dataset_without_points_is_proposed_for_scored_and_reported(data, tmp_path):
    """No reference can be made; the classes of videos, given for the dev videos, too, judge in its place."""
    derive_labels(data, one_kind(data, "classes"), tmp_path / "data")
    bare = Dataset.open(tmp_path / "data")
    chosen = recipe("classes", "rounds=0")
    self_train("tiny", chosen, bare, Options(tmp_path / "run", tmp_path / "store", local=True))
    (row,) = json.loads((tmp_path / "run" / "rounds.json").read_text())
    found = Segments.from_parquet(next((tmp_path / "run" / "round-0").glob("proposals.parquet")))
    assert row["scores"]["points"] is None and 0 < row["scores"]["classes"] <= 1 and row["quality"] is None
    assert classes_score(found, bare, "train") == 1, "on training videos the given classes are taken"
    page = (tmp_path / "run" / "report.html").read_text()
    assert "classes score" in page and "Labels used: video-level classes of 6 training videos" in page
    value, training = trained(chosen, bare, tmp_path / "search")
    assert value == row["scores"]["classes"] and training.reference is None


def test_the_label_budget(data, tmp_path):
    counts = {role: sum(len(data.points(v).time) for v in data.videos(role)) for role in ("train", "dev")}
    hidden = sum(len(data.held_out(v).time) for v in data.videos("train"))
    by = {select: label_budget(data, select) for select in ("points", "dev-map", "dev-quality", "test")}
    assert {b.points for b in by.values()} == {counts["train"]} and {b.videos for b in by.values()} == {6}
    assert by["points"].held_out_points == hidden > 0 and by["points"].boundaries == 0
    assert str(by["points"]).endswith(f"{hidden} held-out points, no boundaries")
    assert by["dev-map"].boundaries == counts["dev"] and by["dev-map"].dev_points == 0
    assert by["dev-quality"].dev_points == counts["dev"] and by["dev-quality"].held_out_points == 0
    assert str(by["dev-map"]).endswith(f"the boundaries of {counts['dev']} actions in 3 dev videos")
    assert by["test"].boundaries > 0 and "test videos" in str(by["test"])


def test_the_label_budget_counts_every_kind_of_label(tmp_path):
    whole = tiny_dataset(tmp_path / "whole", videos=8, classes=2, dim=8)
    kinds = draw_kinds(whole, {"full": 0.25, "points": 0.25, "classes": 0.375, "none": 0.125}, 0)
    made = derive_labels(whole, kinds, tmp_path / "mixed", seed=0)
    budget = label_budget(Dataset.open(tmp_path / "mixed"), "points")
    assert (budget.full_videos, budget.class_videos, budget.videos) == (2, 3, 4)
    assert budget.full_actions == made.boundaries > 0 and budget.points == made.points
    assert str(budget) == (
        f"{made.points} points in 4 training videos, video-level classes of 3 training videos, full labels of 2 "
        f"training videos with {made.boundaries} actions, no label of 1 other, no other boundaries (made of "
        f"{whole.name} by `tad labels`: full 2, points 2, classes 3, none 1; classes from given labels)"
    )
    derive_labels(whole, one_kind(whole, "classes"), tmp_path / "classes", classes_from="annotations")
    budget = label_budget(Dataset.open(tmp_path / "classes"), "classes")
    assert str(budget).startswith("video-level classes of 8 training videos, no boundaries (made of")
    assert str(budget).endswith("classes 8; classes from annotations)") and budget.points == 0
    assert label_budget(whole, "points").derived is None


def test_a_run_states_its_label_budget(data, tmp_path, capsys):
    chosen = recipe("dev-map", "rounds=0")
    self_train("tiny", chosen, data, Options(tmp_path / "run", tmp_path / "store", local=True))
    budget = label_budget(data, "dev-map")
    assert json.loads((tmp_path / "run" / "run.json").read_text())["labels"] == budget.model_dump()
    assert f"labels used: {budget}" in capsys.readouterr().err
    assert f"Labels used: {budget}." in (tmp_path / "run" / "report.html").read_text()
