"""The operating point of a run: folds that nothing leaks into, the whole path on tiny data, and what cannot be had."""

from __future__ import annotations

import json
import pickle
import shutil
from pathlib import Path

import pytest

from distributed.run.cross_fitting import check_folds, deal, without
from distributed.run.session import Options, self_train
from tad.cli import main
from tad.data.dataset import Dataset
from tad.data.segments import Segments
from tad.errors import ConfigError, RunError
from tad.evaluation.operating_point import POINT_FILE, OperatingPoint, read_operating_point
from tad.methods.roles import Labels
from tad.prepare.split import split_holdout
from tad.recipe.recipe import Recipe, changed, load_recipe
from tad.report.run import Run
from tests.support.runs import digests
from tests.support.tiny import RECIPE, TinyEngine, adopted, tiny_dataset

FOLDS = 2
OUTPUTS = ["round-1/labels", "round-1/detections", "round-1/detections-test"]


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Dataset:
    return tiny_dataset(tmp_path_factory.mktemp("folds") / "data", videos=8, classes=2, dim=16)


def recipe(*more: str) -> Recipe:
    return load_recipe(RECIPE, ["rounds=1", "detector.training.epochs=20", "labeler.method=pser-seed", *more])


@pytest.fixture(scope="module")
def runs(data, tmp_path_factory) -> Path:
    """`run`: without an operating point at first, then once more with one; `digests.json`: of the first time."""
    folder = tmp_path_factory.mktemp("cross-fitting")
    options = Options(folder / "run", folder / "store", local=True)
    self_train("tiny", recipe(), data, options)
    assert not (folder / "run" / POINT_FILE).exists()
    (folder / "digests.json").write_text(json.dumps(digests(folder / "run", OUTPUTS)))
    (folder / "stages.json").write_text(json.dumps(sorted(done(folder / "run"))))
    self_train("tiny", recipe(f"operating_point.folds={FOLDS}"), data, options)
    return folder


def done(run: Path) -> list[str]:
    """The keys of the stages that were run, not found."""
    events = [json.loads(line) for line in (run / "events.jsonl").read_text().splitlines()]
    return [e["fingerprint"] for e in events if e["kind"] == "stage-done"]


def tad(*arguments: object) -> int:
    with pytest.raises(SystemExit) as ended:
        main([str(a) for a in arguments])
    return int(ended.value.code or 0)


# -- folds -------------------------------------------------------------------------------------------------------------


def test_folds_are_disjoint_complete_seeded_and_share_every_class(data):
    labels = Segments.concat(
        [Segments.of(v, [1.0], [2.0], data.classes[i % 2]) for i, v in enumerate(data.videos("train"))]
    )
    folds = deal(labels, data, 2, seed=3)
    assert sorted(v for fold in folds for v in fold) == sorted(data.videos("train"))
    assert [len(fold) for fold in folds] == [4, 4] and not set(folds[0]) & set(folds[1])
    of = dict(zip(labels.video_ids, labels.labels, strict=True))
    assert all(sorted(of[v] for v in fold) == sorted(data.classes * 2) for fold in folds)
    assert deal(labels, data, 2, seed=3) == folds
    assert any(deal(labels, data, 2, seed=seed) != folds for seed in range(4, 8))


def test_held_videos_are_dev_videos_in_every_process(data):
    train = data.videos("train")
    fold = data.holding(train[:3])
    for there in (fold, pickle.loads(pickle.dumps(fold))):
        assert there.videos("dev") == train[:3] and there.videos("train") == train[3:]
        assert there.videos("test") == data.videos("test")
        assert there.fingerprint("train") == fold.fingerprint("train") != data.fingerprint("train")
    assert data.videos("train") == train and data.videos("dev") == []


def test_held_videos_replace_dev_videos(data, tmp_path):
    split_holdout(data, 0.25, None, 0, tmp_path / "held")
    both = Dataset.open(tmp_path / "held")
    train, dev = both.videos("train"), both.videos("dev")
    fold = both.holding(train[:2])
    assert len(dev) == 2 and fold.videos("dev") == train[:2] and fold.videos("train") == train[2:]


def test_what_a_fold_learns_from_does_not_depend_on_the_labels_of_held_videos(data, tmp_path):
    """By fingerprints, which cover all that a stage reads: of the videos, and of the pseudo-labels that are given."""
    held = data.videos("train")[:3]
    shutil.copytree(data.root, tmp_path / "other", symlinks=True)
    lines = (data.root / "points.csv").read_text().splitlines()
    kept = [line for line in lines if line.split(",")[0] not in held]
    assert len(kept) < len(lines)
    (tmp_path / "other" / "points.csv").write_text("\n".join([*kept, f"{held[0]},{data.classes[0]},1.5"]) + "\n")
    other = Dataset.open(tmp_path / "other")
    assert other.fingerprint("train") != data.fingerprint("train")
    assert other.holding(held).fingerprint("train") == data.holding(held).fingerprint("train")

    engine = TinyEngine(data, 0, tmp_path)
    rows = [(v, 1.0 + i, 2.0 + i, data.classes[0], 1.0) for v in data.videos("train") for i in range(2)]
    labels = Labels(adopted(engine, rows), adopted(engine, [(v, 5.0, 6.0, c, s) for v, _, _, c, s in rows]))
    left = without(labels, set(held), engine)
    assert left.ignored is not None
    for artifact in (left.segments, left.ignored):
        assert set(artifact.segments().video_ids) == set(data.videos("train")) - set(held)
        assert len(artifact.segments()) == 2 * 5


# -- the whole path ----------------------------------------------------------------------------------------------------


def test_asked_for_later_it_runs_nothing_again_and_changes_nothing(runs):
    assert digests(runs / "run", OUTPUTS) == json.loads((runs / "digests.json").read_text())
    before, after = json.loads((runs / "stages.json").read_text()), done(runs / "run")
    assert set(before) <= set(after) and len(after) == len(set(after)), "no stage ran twice"
    stages = Run.open(runs / "run").stages
    new = [(s.name, s.fold) for s in stages if s.state == "done" and s.fold]
    assert len(new) == len(after) - len(before)
    for name in ("snippet/train", "actionformer/train", "actionformer/detect"):
        assert [fold for stage, fold in new if stage == name] == ["1 of 2", "2 of 2"]
    assert not any(name.startswith("pser") for name, _ in new), "the labels are the run's"


def test_the_point_is_of_the_best_round_and_of_every_class(runs, data):
    row = json.loads((runs / "run" / "rounds.json").read_text())[1]
    point = read_operating_point(runs / "run", {1: row["model"]}, 1)
    assert (point.source, point.folds, sorted(point.classes)) == ("pseudo-labels", FOLDS, sorted(data.classes))
    assert sum(c.labels for c in point.classes.values()) == data.point_count("train") == point.common.labels
    assert 0 < point.common.f1 <= 1 and all(0 < c.threshold < 1 for c in point.classes.values())


def test_the_same_seed_gives_the_same_thresholds(runs, data, tmp_path):
    options = Options(tmp_path / "run", tmp_path / "store", local=True)
    self_train("tiny", recipe(f"operating_point.folds={FOLDS}"), data, options)
    assert (tmp_path / "run" / POINT_FILE).read_text() == (runs / "run" / POINT_FILE).read_text()


def test_confident_detections_are_those_that_evaluate_counts(runs, data, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    detect = ("detect", runs / "run", "--data", data.root, "--local", "--store", runs / "store")
    assert tad(*detect, "--confident", "--out", "sure.parquet") == 0
    assert "detections count; thresholds chosen on training videos and their pseudo-labels" in capsys.readouterr().out
    every, sure = runs / "run" / "round-1" / "detections-test.parquet", Path("sure.parquet")
    point = OperatingPoint.model_validate(json.loads((runs / "run" / POINT_FILE).read_text()))
    kept = Segments.from_file(sure)
    expected = point.confident(Segments.from_file(every))
    assert kept.replace(source="").digest() == expected.replace(source="").digest()
    assert 0 < len(kept) < len(Segments.from_file(every))

    found = {}
    for name, threshold in (("auto", "auto"), ("run", runs / "run"), ("zero", "0")):
        file = every if name == "auto" else sure
        arguments = (file, "--data", data.root, "--subset", "test", "--threshold", threshold)
        assert tad("evaluate", *arguments, "--json", f"{name}.json") == 0
        found[name] = json.loads(Path(f"{name}.json").read_text())
    shown = capsys.readouterr().out
    assert "detections that count, thresholds chosen on training videos" in shown
    assert "expected calibration error" in shown and "scores of at least 0" in shown
    assert found["auto"]["threshold"] == found["run"]["threshold"]
    auto, zero = (found[name]["threshold"] for name in ("auto", "zero"))
    assert [auto[key] for key in ("labels", "detections", "f1")] == [
        zero[key] for key in ("labels", "detections", "f1")
    ]
    assert auto["per_class"][data.classes[0]]["threshold"] == point.classes[data.classes[0]].threshold
    assert sum(b["detections"] for b in found["auto"]["reliability"]["bins"]) == found["auto"]["counts"]["detections"]


def test_the_report_shows_the_thresholds(runs):
    page = (runs / "run" / "report.html").read_text()
    point = OperatingPoint.model_validate(json.loads((runs / "run" / POINT_FILE).read_text()))
    assert 'id="point"' in page and 'id="reliability"' in page and "test:<br>precision" in page
    for row in point.classes.values():
        assert f"<td>{row.threshold:.3f}</td>" in page


def test_dev_videos_whose_boundaries_select_give_thresholds_at_no_cost(data, tmp_path):
    split_holdout(data, 0.25, None, 0, tmp_path / "data")
    held = Dataset.open(tmp_path / "data")
    self_train("tiny", recipe("select=dev-map"), held, Options(tmp_path / "run", tmp_path / "store", local=True))
    point = OperatingPoint.model_validate(json.loads((tmp_path / "run" / POINT_FILE).read_text()))
    assert (point.source, point.folds) == ("dev", 0)
    assert not any(stage.fold for stage in Run.open(tmp_path / "run").stages)


# -- what cannot be had ------------------------------------------------------------------------------------------------


def test_without_an_operating_point_the_remedy_is_named(data, runs, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    bare = tmp_path / "bare"
    (bare / "round-1").mkdir(parents=True)
    for name in ("run.json", "rounds.json", "round-1/detections-test.parquet"):
        (bare / name).write_bytes((runs / "run" / name).read_bytes())
    detect = ("detect", bare, "--data", data.root, "--local", "--store", runs / "store", "--out", "x.json")
    file = bare / "round-1" / "detections-test.parquet"
    evaluate = ("evaluate", file, "--data", data.root, "--subset", "test", "--threshold", "auto")
    for command in ((*detect, "--confident"), evaluate):
        assert tad(*command) == 1
        assert "has no operating point" in (said := capsys.readouterr().err)
        assert "--set operating_point.folds=3" in said and not Path("x.json").exists()
    loose = tmp_path / "loose.parquet"
    loose.write_bytes(file.read_bytes())
    assert tad("evaluate", loose, *evaluate[2:]) == 1
    assert "lies in no run's folder" in (said := capsys.readouterr().err) and "--threshold RUN" in said
    assert tad("evaluate", loose, *evaluate[2:-1], "0.4", "--protocol", "thumos14") == 2
    assert tad("evaluate", loose, *evaluate[2:-1], "nan") == 2


def test_folds_that_cannot_be_are_refused_before_any_training(data):
    with pytest.raises(ConfigError, match="with 1 nothing is left to train on"):
        recipe("operating_point.folds=1")
    with pytest.raises(ConfigError, match="with rounds: 0 there is none"):
        recipe("operating_point.folds=3", "rounds=0")
    assert check_folds(recipe(), data) is None
    assert "2 more times" in (check_folds(recipe("operating_point.folds=2"), data) or "")
    with pytest.raises(RunError, match="9 folds of 8 training videos cannot be dealt; set at most 8"):
        check_folds(changed(recipe(), {"operating_point": {"folds": 9}}), data)
