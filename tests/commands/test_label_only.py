"""`tad tune label-only`: a labeler's options over fixed proposals, chosen on some videos and measured on the others."""

from __future__ import annotations

import json

import click
import numpy as np
import optuna
import pytest

from distributed.tuning.label_only import Judged, LabelSearch, divided, gain_error, search_labels
from tad.cli import main
from tad.commands.label_only import WithLabelOnly
from tad.commands.stages import read_proposals
from tad.data.dataset import Dataset
from tad.data.segments import Segments
from tad.errors import DataError, RunError
from tad.evaluation.ground_truth import ground_truth
from tad.evaluation.quality_by_point import label_quality
from tad.ops.iou import paired_tiou
from tad.recipe.recipe import load_labeler
from tests.support.tiny import tiny_dataset


def blurred(data: Dataset, seed: int = 0) -> Segments:
    """Proposals: every training instance, longer than it is and somewhere near, and as many wrong ones."""
    rng, truth = np.random.default_rng(seed), ground_truth(data, "train")
    spans = truth.spans + rng.normal(0, 0.15, (len(truth), 2)) * (truth.end - truth.start)[:, None]
    spans[:, 1] += 0.8 * (truth.end - truth.start)
    elsewhere = spans + rng.uniform(-4, 4, (len(truth), 1))
    both = np.clip(np.concatenate([spans, elsewhere]), 0, None)
    both[:, 1] = np.maximum(both[:, 1], both[:, 0] + 0.1)
    score = np.concatenate([rng.uniform(0.3, 1, len(truth)), rng.uniform(0, 0.7, len(truth))])
    ids, labels = truth.video_ids, truth.labels
    return Segments.of([*ids, *ids], both[:, 0], both[:, 1], [*labels, *labels], score)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("label-only")
    data = tiny_dataset(folder / "data", videos=12, classes=3, dim=8)
    return data, blurred(data), folder


def test_a_search_chooses_on_dev_videos_and_measures_on_the_others(world, tmp_path):
    data, proposals, _ = world
    found = search_labels("points", proposals, data, 8, 0, 5, tmp_path / "study", str(tmp_path / "store"))
    assert found.default.options == {} and found.summary.recipe.number == 0
    assert found.best.dev["mean_tiou"] >= found.default.dev["mean_tiou"]
    assert found.summary.best.values[0] == found.best.dev["mean_tiou"] > 0.2
    assert found.summary.states == {"COMPLETE": 8}
    # The same numbers from the options alone, over all training videos at once.
    labeler = load_labeler("points", [f"{k}={v}" for k, v in found.best.options.items()])
    whole = label_quality(labels_of(labeler, data, proposals, tmp_path), data, "train")
    n, m = found.best.dev["points"], found.best.rest["points"]
    assert n + m == whole.to_json()["points"]
    mean = (n * found.best.dev["mean_tiou"] + m * found.best.rest["mean_tiou"]) / (n + m)
    assert whole.to_json()["mean_tiou"] == pytest.approx(mean, abs=1e-12)
    assert (
        found.budget.boundaries == len(ground_truth(divided(data, 5, 0), "dev")) and found.budget.boundary_videos == 5
    )


def labels_of(labeler, data, proposals, folder) -> Segments:
    from tests.support.tiny import TinyEngine

    engine = TinyEngine(data, 0, folder / "once")
    return labeler.label(engine, engine.adopt(proposals, "proposals"), None).segments()


def test_the_search_never_sees_other_boundaries(world, tmp_path, monkeypatch):
    """Boundaries of other videos are read after the last trial, those of test videos never."""
    data, proposals, _ = world
    import distributed.tuning.label_only as module

    seen, during = [], []
    real, report = ground_truth, module._report

    def watched(dataset, role):
        seen.extend(dataset.videos(role))
        return real(dataset, role)

    def reported(*arguments):
        found = report(*arguments)
        during.append(set(seen))
        return found

    monkeypatch.setattr(
        "tad.evaluation.ground_truth.ground_truth", watched
    )  # label_quality imports it when it is called
    monkeypatch.setattr(module, "ground_truth", watched)
    monkeypatch.setattr("tad.report.budget.ground_truth", watched)
    monkeypatch.setattr(module, "_report", reported)
    search_labels("pser-seed", proposals, data, 4, 1, 5, tmp_path / "study", str(tmp_path / "store"))
    parts = divided(data, 5, 1)
    assert len(during) == 4 and all(videos == set(parts.videos("dev")) for videos in during)
    assert set(seen) == set(data.videos("train")) and not set(seen) & set(data.videos("test"))


def test_dev_videos_depend_on_the_seed_and_are_training_videos(world):
    data, _, _ = world
    drawn = [tuple(divided(data, 5, seed).videos("dev")) for seed in (0, 0, 1)]
    assert drawn[0] == drawn[1] != drawn[2]
    parts = divided(data, 5, 0)
    assert sorted(parts.videos("dev") + parts.videos("train")) == sorted(data.videos("train"))
    assert not parts.videos("test")
    for bad in (0, 12, -1):
        with pytest.raises(RunError, match=r"--dev-videos .* needs 1 to 11"):
            divided(data, bad, 0)


def test_it_goes_on_and_repeats_nothing(world, tmp_path):
    data, proposals, _ = world
    folder, store = tmp_path / "study", str(tmp_path / "store")
    first = search_labels("points", proposals, data, 4, 0, 5, folder, store)
    again = search_labels("points", proposals, data, 4, 0, 5, folder, store)
    assert (first.best, first.default) == (again.best, again.default)
    longer = search_labels("points", proposals, data, 7, 0, 5, folder, store)
    assert longer.summary.states == {"COMPLETE": 7}
    study = optuna.load_study(study_name="label-only", storage=f"sqlite:///{folder / 'study.db'}")
    assert len(study.trials) == 7
    kept = [e for e in (folder / "events.jsonl").read_text().splitlines() if json.loads(e)["kind"] == "stage"]
    assert len(kept) == 7, "each trial labels once"
    with pytest.raises(RunError, match=r"another search: its .*dev videos"):
        search_labels("points", proposals, data, 4, 1, 5, folder, store)
    with pytest.raises(RunError, match=r"another search: its .*proposals"):
        search_labels("points", proposals.filter(proposals.score > 0.5), data, 4, 0, 5, folder, store)


def test_the_same_search_finds_the_same(world, tmp_path):
    data, proposals, _ = world
    found = [
        search_labels("pser-seed", proposals, data, 5, 2, 5, tmp_path / str(i), str(tmp_path / "store")) for i in (0, 1)
    ]
    assert found[0].best == found[1].best


def test_a_gain_counts_only_if_it_is_more_than_chance(world):
    """The error is that of a bootstrap over videos; no difference has none."""
    data, proposals, folder = world
    parts = divided(data, 8, 0)
    truth = ground_truth(parts, "dev")
    before, after = (
        labels_of(load_labeler("pser-seed", options), data, proposals, folder / str(i))
        for i, options in enumerate(([], ["seed_rule.min_score=0.7"]))
    )
    error = gain_error(before, after, parts, truth)
    assert gain_error(before, before, parts, truth) == 0

    def tious(labels):
        by_video = []
        for v in parts.videos("dev"):
            mine = labels.by_video().get(v, Segments.empty())
            own = truth.by_video()[v]
            rows = {(p, c): s for p, c, s in zip(mine.point.round(6), mine.labels, mine.spans, strict=True)}
            spans = [rows[round(float(t), 6), data.classes[c]] for t, c in zip(*data.points(v), strict=True)]
            inside = [own.spans[(own.start <= t) & (t <= own.end)][0] for t in data.points(v).time]
            by_video.append(paired_tiou(np.array(spans), np.array(inside)))
        return by_video

    gain = [b - a for a, b in zip(tious(before), tious(after), strict=True)]
    total, count = np.array([g.sum() for g in gain]), np.array([len(g) for g in gain])
    drawn = np.random.default_rng(0).integers(0, len(gain), (20000, len(gain)))
    assert error == pytest.approx(np.std(total[drawn].sum(1) / count[drawn].sum(1)), rel=0.15)
    assert gain_error(before, after, divided(data, 1, 0), truth) == float("inf")


def test_what_is_chosen(world):
    def search(gain: float, error: float) -> LabelSearch:
        default, best = (Judged({}, {"mean_tiou": x}, None) for x in (0.5, 0.5 + gain))
        return LabelSearch(default, best, error, None, None)

    for gain, error, taken in ((0.02, 0.009, True), (0.02, 0.011, False), (0.0, 0.0, False), (0.1, np.inf, False)):
        found = search(gain, error)
        assert (found.chosen is found.best) == taken and (found.chosen is found.default) == (not taken)


def test_potloc_tries_its_rules(world, tmp_path):
    data, proposals, _ = world
    found = search_labels("potloc", proposals, data, 12, 0, 5, tmp_path / "study", str(tmp_path / "store"))
    study = optuna.load_study(study_name="label-only", storage=f"sqlite:///{tmp_path / 'study' / 'study.db'}")
    assert {t.params["labeler.rule"] for t in study.trials} == {"midpoints", "released", "paper"}
    assert len({t.values[0] for t in study.trials}) == 3
    assert found.best.dev["mean_tiou"] == max(t.values[0] for t in study.trials)


def test_without_annotations_it_is_refused_or_the_others_are_not_measured(world, tmp_path):
    data, proposals, _ = world
    dev = set(divided(data, 5, 0).videos("dev"))
    for name, bare in (("rest", lambda v: v not in dev), ("dev", lambda v: v in dev)):
        copy = tmp_path / name
        copy.mkdir()
        for file in ("dataset.yaml", "points.csv"):
            (copy / file).write_text((data.root / file).read_text())
        document = json.loads((data.root / "annotations.json").read_text())
        for video, entry in document["database"].items():
            if bare(video):
                entry["annotations"] = []
        (copy / "annotations.json").write_text(json.dumps(document))
    arguments = (proposals, Dataset.open(tmp_path / "rest"), 2, 0, 5)
    found = search_labels("points", *arguments, tmp_path / "a", str(tmp_path / "store"))
    assert found.default.rest is None and found.default.dev["mean_tiou"] > 0
    with pytest.raises(DataError, match="none of the 5 videos drawn from training has a segment"):
        search_labels("points", proposals, Dataset.open(tmp_path / "dev"), 2, 0, 5, tmp_path / "b", str(tmp_path / "s"))
    with pytest.raises(RunError, match="--trials 0"):
        search_labels("points", proposals, data, 0, 0, 5, tmp_path / "c", str(tmp_path / "s"))


def test_the_command_prints_a_table_and_how_to_label(world, tmp_path, monkeypatch, capsys):
    data, proposals, folder = world
    proposals.to_json_file(folder / "proposals.json")
    monkeypatch.chdir(tmp_path)
    tune = WithLabelOnly("tune", params=[click.Argument(["recipe"])], callback=lambda recipe: click.echo(f"<{recipe}>"))
    tune.main(["pser"], standalone_mode=False)
    assert capsys.readouterr().out == "<pser>\n"
    arguments = ["label-only", "--proposals", str(folder / "proposals.json"), "--data", str(data.root)]
    tune.main([*arguments, "--trials", "5", "--dev-videos", "5"], standalone_mode=False)
    lines = capsys.readouterr().out.splitlines()
    table = {line[:22].strip(): line[22:].split() for line in lines[:4]}
    default, best = table["labeler as it is"], next(v for k, v in table.items() if k.startswith("best"))
    assert [float(b) - float(a) for a, b in zip(default, best, strict=True)] == pytest.approx(
        [float(x) for x in (table["gain"][0], table["gain"][3])], abs=1.1e-4
    )
    taken = float(table["gain"][0]) > 2 * float(table["gain"][2])
    assert ("the best is taken" in lines[4]) == taken and ("stays as it is" in lines[4]) == (not taken)
    # The command at the end gives labels of that quality.
    command = lines[-1].split()
    assert command[:3] == ["tad", "label", "points"]
    with pytest.raises(SystemExit):
        main([*command[1:], "--local"])
    made = label_quality(Segments.from_file(tmp_path / "labels.json"), divided(data, 5, 0), "dev").to_json()
    assert made["mean_tiou"] == pytest.approx(float((best if taken else default)[0]), abs=1e-3)


def test_class_ids_of_proposals_are_those_of_the_dataset(world):
    """`tad label` and `tad tune label-only` read proposals alike."""
    data, proposals, folder = world
    proposals.to_json_file(folder / "proposals.json")
    document = proposals.to_results_json()
    for rows in document["results"].values():
        for row in rows:
            row["label"] = data.classes.index(row["label"])
    (folder / "ids.json").write_text(json.dumps(document))
    found = read_proposals(folder / "ids.json", data)
    assert len(found) > 0 and found.labels == Segments.from_file(folder / "proposals.json").labels
