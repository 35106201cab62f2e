"""Labeler `apl`: thresholds, selection, what the discriminator may change, statistics, and a whole run."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from distributed.engine.engine import Engine
from distributed.run.session import Options, self_train
from tad.commands.data import export
from tad.commands.evaluate import quality
from tad.data.dataset import Dataset
from tad.data.segments import Segments
from tad.errors import ConfigError, RunError
from tad.methods.apl.labeler import AplLabeler, LabelConfig, verdict
from tad.methods.apl.selection import Selection
from tad.recipe.recipe import Recipe, load_recipe
from tests.support.annotated import annotated
from tests.support.plain import SMALL, invent, label_fully
from tests.support.rounds import round_of
from tests.support.tiny import TinyEngine

FULL = ("v0", "v1", "v2", "v3", "v4", "v5")
QUICK = {"training": {"hidden": 16, "batch_size": 16, "steps": 100, "lr": 1e-2}}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Six fully labelled videos, one with a class, one with a point, two with nothing."""
    data, truth = invent(tmp_path_factory.mktemp("plain") / "data", videos=10)
    (data.root / "labels.csv").write_text("video_id,label\nv6,jump\n")
    (data.root / "points.csv").write_text("video_id,label,time\nv7,throw,4.0\n")
    return label_fully(data, truth, FULL)


@pytest.fixture(scope="module")
def engine(data: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Engine:
    return TinyEngine(data, 0, tmp_path_factory.mktemp("engine"))


def detections(data: Dataset, seed: int = 0) -> Segments:
    """Twelve detections in every training video, of both classes, with all kinds of scores."""
    rng = np.random.default_rng(seed)
    rows = []
    for video in data.videos("train"):
        start = rng.uniform(0, data.duration(video) - 8, 12)
        rows += [(video, s, s + rng.uniform(2, 8), data.classes[rng.integers(2)], rng.beta(1, 2)) for s in start]
    return Segments.of(*zip(*rows, strict=True), source="from/elsewhere@7")


def by_source(labels: Segments) -> dict[str, set[tuple[str, float, float, str, float]]]:
    found: dict[str, set[tuple[str, float, float, str, float]]] = {}
    for r in labels.rows():
        kind = r["source"].rpartition("@")[0]
        found.setdefault(kind, set()).add((r["video_id"], r["start"], r["end"], r["label"], r["score"]))
    return found


# -- thresholds ------------------------------------------------------------------------------------------------------


def split(scores: list[float], expected: float = np.nan, **options: object) -> tuple[list[float], list[float]]:
    config, values = Selection.model_validate(options), np.array(scores)
    positive, candidate = config.split(values, config.d2(values, expected))
    return values[positive].tolist(), values[candidate].tolist()


def test_the_published_rule_by_hand() -> None:
    scores = np.array([0.9, 0.5, 0.2, 0.1])
    assert Selection().d2(scores, np.nan) == pytest.approx(0.8201, abs=1e-4)
    assert split(scores.tolist()) == ([0.9], [0.5, 0.2])
    assert split([0.4]) == ([0.4], [])
    assert split([0.1, 0.149]) == ([], [])
    assert split([]) == ([], [])


@pytest.mark.parametrize("seed", range(20))
def test_rounding_does_not_decide(seed: int) -> None:
    """Of equal scores all are positive; of two, the better is mean + std to the last digit on paper."""
    rng = np.random.default_rng(seed)
    low, high = sorted(rng.uniform(0.15, 1.0, 2).tolist())
    assert split([low, high]) == ([high], [low])
    assert split([high] * int(rng.integers(2, 12)))[1] == []


def test_the_options_of_the_rule() -> None:
    scores = [0.9, 0.5, 0.2, 0.1]
    assert split(scores, k=0.0) == ([0.9], [0.5, 0.2])
    assert split(scores, k=0.0, d1=0.05) == ([0.9, 0.5], [0.2, 0.1])
    assert split(scores, d2_max=0.4) == ([0.9, 0.5], [0.2])
    assert split(scores, min_pos=2) == ([0.9, 0.5], [0.2])
    assert split(scores, min_pos=10) == ([0.9, 0.5, 0.2], [])
    assert split(scores, rule="fixed") == ([0.9, 0.5], [0.2])
    assert split(scores, rule="fixed", fixed=0.1, d1=0.3) == (scores, [])
    assert split(scores, 4, rule="fixed", fixed=0.6, least_share=0.5) == ([0.9, 0.5], [0.2])
    assert split(scores, 0.9, rule="fixed", fixed=0.6, least_share=0.5) == ([0.9], [0.5, 0.2])
    assert split(scores, 100, rule="fixed", fixed=0.6, least_share=0.5) == ([0.9, 0.5, 0.2], [])
    assert split([], 100, rule="fixed", least_share=0.5) == ([], [])


# -- selection -------------------------------------------------------------------------------------------------------


def test_only_what_given_labels_allow_is_selected(engine: Engine, data: Dataset) -> None:
    rows = detections(data)
    found = AplLabeler(selection={"d1": 0.0}).seeds(round_of(engine, proposals=engine.adopt(rows, "rows"))).segments()
    want = dict.fromkeys(("v6", "v7", "v8", "v9"), data.classes) | {"v6": ["jump"], "v7": ["throw"]}
    have = {(r["video_id"], r["start"]) for r in found.rows()}
    assert have == {(r["video_id"], r["start"]) for r in rows.rows() if r["label"] in want.get(r["video_id"], ())}
    assert set(found.codes("source")[1]) == {"apl/positive@0", "apl/candidate@0"}
    assert all((np.diff(of_video.score) <= 0).all() for of_video in found.by_video().values())


@pytest.mark.parametrize("scope", ["video", "class", "epoch"])
def test_the_scope_of_the_threshold(scope: str, engine: Engine, data: Dataset) -> None:
    rows = detections(data)
    now = round_of(engine, proposals=engine.adopt(rows, "rows"))
    found = AplLabeler(selection={"scope": scope, "k": 0.5}).seeds(now).segments()
    allowed = {"v6": {"jump"}, "v7": {"throw"}, "v8": set(data.classes), "v9": set(data.classes)}
    every = [r for r in rows.rows() if r["score"] >= 0.15 and r["label"] in allowed.get(r["video_id"], ())]
    key = {"video": "video_id", "class": "label"}.get(scope)
    positives = set()
    for group in {r[key] if key else None for r in every}:
        scores = np.array([r["score"] for r in every if key is None or r[key] == group])
        bar = scores.mean() + 0.5 * scores.std()
        positives |= {r["start"] for r in every if (key is None or r[key] == group) and r["score"] >= bar}
    kinds = by_source(found)
    assert {row[1] for row in kinds["apl/positive"]} == positives
    assert {row[1] for row in kinds["apl/candidate"]} == {r["start"] for r in every} - positives


@pytest.mark.parametrize("fixed", [0.2, 0.99])
def test_a_fixed_threshold_falls_until_there_is_a_label_for_a_share_of_what_is_to_be_expected(
    fixed: float, engine: Engine, data: Dataset
) -> None:
    rows = detections(data)
    now = round_of(engine, proposals=engine.adopt(rows, "rows"))
    selection = {"rule": "fixed", "fixed": fixed, "least_share": 0.4, "d1": 0.0}
    labeler = AplLabeler(selection=selection, icd={"use": False})
    kinds = by_source(labeler.seeds(now).segments())
    actions = sum(len(data.full_labels(v).label) for v in FULL)
    others = [v for v in data.videos("train") if v not in FULL]
    expected = actions / sum(map(data.duration, FULL)) * sum(map(data.duration, others))
    positives, candidates = kinds["apl/positive"], kinds["apl/candidate"]
    least, most = min(row[4] for row in positives), max(row[4] for row in candidates)
    reached = {row for row in positives | candidates if row[4] >= fixed}
    assert most < least and (len(positives) == round(0.4 * expected) if fixed == 0.99 else positives == reached)
    made = labeler.label(now)
    assert made.statistics is not None and made.statistics()["mean_d2"] == pytest.approx(min(least, fixed))
    assert made.note is not None and f"expect {expected:.0f} actions" in made.note()
    assert (f"{len(positives)} detections reach" in made.note()) and ("threshold fell" in made.note()) == (
        fixed == 0.99
    )


def test_near_duplicates_go_by_option(engine: Engine, data: Dataset) -> None:
    spans = [(1.0, 5.0, "jump", 0.9), (1.2, 5.2, "jump", 0.8), (1.2, 5.2, "throw", 0.7), (6.0, 9.0, "jump", 0.6)]
    rows = Segments.of(["v8"] * 4, *zip(*spans, strict=True))
    now = round_of(engine, proposals=engine.adopt(rows, "duplicates"))
    assert len(AplLabeler().seeds(now).segments()) == 4
    kept = AplLabeler(selection={"d1": 0.05, "hard_nms": 0.5}).seeds(now).segments()
    assert sorted(kept.score.tolist()) == [0.6, 0.7, 0.9]


# -- labels ----------------------------------------------------------------------------------------------------------


def test_labels_of_all_videos(engine: Engine, data: Dataset) -> None:
    """Elimination never adds, mining never removes; given labels stay what they are."""
    now = round_of(engine, proposals=engine.adopt(detections(data), "rows"))
    with_icd = AplLabeler(icd=QUICK | {"alpha": 0.4, "beta": 0.6}, ignore=True)
    selected = by_source(with_icd.seeds(now).segments())
    made = with_icd.label(now)
    assert made.ignored is not None and made.statistics is not None
    labels, left = made.segments.segments(), made.ignored.segments()
    found = by_source(labels)
    assert set(found) == {"given", "apl/label", "apl/mined"} and set(left.codes("source")[1]) == {"apl/ignore@0"}
    ignored = by_source(left)["apl/ignore"]
    assert AplLabeler(icd=QUICK).label(now).ignored is None
    given = {(v, s, e, data.classes[c], 1.0) for v in FULL for (s, e), c in zip(*data.full_labels(v), strict=True)}
    assert found["given"] == given
    assert found["apl/label"] < selected["apl/positive"]
    taken = found["apl/label"] | found["apl/mined"]
    assert taken | ignored == selected["apl/positive"] | selected["apl/candidate"]
    assert not taken & ignored and len(ignored) == len(left)
    assert ignored & selected["apl/positive"] and ignored & selected["apl/candidate"]

    numbers = made.statistics()
    kept, mined = len(found["apl/label"]), len(found["apl/mined"])
    assert numbers["labels_per_video"] == (kept + mined) / 4
    assert numbers["eliminated"] == pytest.approx(1 - kept / len(selected["apl/positive"]))
    assert numbers["mined"] == mined / (kept + mined) and numbers["left"] == len(ignored)
    assert numbers["videos_without"] == 4 - len({row[0] for row in found["apl/label"] | found["apl/mined"]})
    assert sum(numbers["per_class"].values()) == kept + mined
    d2 = []
    for video in ("v6", "v7", "v8", "v9"):
        scores = [r[4] for kind in selected.values() for r in kind if r[0] == video]
        d2 += [np.mean(scores) + np.std(scores)] if scores else []
    assert numbers["mean_d2"] == pytest.approx(np.mean(d2))


def test_alpha_0_and_beta_1_are_the_selection_alone(engine: Engine, data: Dataset) -> None:
    now = round_of(engine, proposals=engine.adopt(detections(data), "rows"))
    open_icd = AplLabeler(icd=QUICK | {"alpha": 0.0, "beta": 1.0}).label(now).segments
    without = AplLabeler(icd={"use": False}).label(now).segments
    assert open_icd.fingerprint != without.fingerprint
    assert open_icd.segments().digest() == without.segments().digest()
    positives = by_source(AplLabeler().seeds(now).segments())["apl/positive"]
    assert by_source(without.segments())["apl/label"] == positives


def test_ignored_stretches_are_neither_judged_nor_exported(tmp_path: Path) -> None:
    """One right label and two candidates: what `tad quality` and `tad export` make of a round's labels."""
    data = annotated(tmp_path / "data", [("a", "jump", 10.0, 20.0), ("a", "run", 60.0, 70.0)])
    engine = TinyEngine(data, 0, tmp_path)
    rows = Segments.of(["a"] * 3, [10.0, 30.0, 50.0], [20.0, 40.0, 55.0], ["jump", "jump", "run"], [0.9, 0.3, 0.3])
    labeler = AplLabeler(icd={"use": False}, ignore=True)
    labels = labeler.label(round_of(engine, proposals=engine.adopt(rows, "rows")))
    assert labels.ignored is not None and labels.ignored.segments().start.tolist() == [30.0, 50.0]
    path = str(labels.segments.path / "segments.parquet")
    judged = CliRunner().invoke(quality, [path, "--data", str(data.root), "--json", str(tmp_path / "q.json")])
    assert judged.exit_code == 0, judged.output
    found = json.loads((tmp_path / "q.json").read_text())
    assert (found["labels"], found["hits"], found["recall"]) == (1, 1.0, 0.5)
    out = ["--labels", path, "--data", str(data.root), "--out", str(tmp_path / "out")]
    assert CliRunner().invoke(export, ["opentad", *out]).exit_code == 0
    database = json.loads((tmp_path / "out" / "opentad.json").read_text())["database"]
    assert database["a"]["annotations"] == [{"segment": [10.0, 20.0], "label": "jump"}]


def test_the_verdict_at_its_thresholds() -> None:
    positive = np.array([True, True, True, False, False, False])
    alike = np.array([0.29, 0.3, 1.0, 0.7, 0.71, 0.0])
    kept, mined = verdict(positive, alike, LabelConfig(alpha=0.3, beta=0.7))
    assert kept.tolist() == [False, True, True, False, False, False]
    assert mined.tolist() == [False, False, False, False, True, False]


def test_the_discriminator_tells_classes_apart(engine: Engine, data: Dataset) -> None:
    """Detections at the true places with the right class are kept, those with the wrong class go."""
    _, truth = invent(engine.record.folder / "again", videos=10)
    right = truth.filter(np.isin(truth.video_ids, ["v8", "v9"])).replace(score=0.9)
    wrong = right.replace(label=["throw" if x == "jump" else "jump" for x in right.labels])
    now = round_of(engine, proposals=engine.adopt(Segments.concat([right, wrong]), "right and wrong"))
    found = by_source(AplLabeler(icd=QUICK).label(now).segments.segments())
    assert found["apl/label"] == {(r["video_id"], r["start"], r["end"], r["label"], 0.9) for r in right.rows()}


# -- checks before anything is trained, and a run --------------------------------------------------------------------


def test_what_does_not_go_together_is_refused(data: Dataset, tmp_path: Path) -> None:
    bare, _ = invent(tmp_path / "data", videos=3)
    assert AplLabeler().problems(data) == []
    assert "no training video has full labels" in AplLabeler().problems(bare)[0]
    assert AplLabeler(icd={"use": False}).problems(bare) == []
    share = AplLabeler(selection={"rule": "fixed", "least_share": 0.5}, icd={"use": False})
    assert share.problems(data) == [] and "how many actions" in share.problems(bare)[0]
    with pytest.raises(ConfigError, match="potloc does not; use detector actionformer"):
        load_recipe("pser", ["labeler.method=apl", "labeler.ignore=true", "detector.method=potloc"])
    chosen = load_recipe("seeds", ["labeler.method=apl", "labeler.selection.rule=fixed", "labeler.icd.use=false"])
    assert chosen.labeler.selection.rule == "fixed"


def recipe(**labeler: object) -> Recipe:
    small = SMALL | {"epochs": 6, "lr": 1e-2, "ema_decay": 0.5}
    return Recipe.model_validate(
        {
            "proposer": {"method": "actionformer", "training": small},
            "labeler": {"method": "apl", "icd": QUICK, **labeler},
            "detector": {"method": "actionformer", "decode": {"video_power": 0.0}, **small},
            "rounds": 2,
            "select": "classes",
            "stop": {"change": 1.0, "score_drop": 1.0},
        }
    )


def test_a_whole_run(data: Dataset, tmp_path: Path) -> None:
    options = Options(tmp_path / "run", tmp_path / "store", local=True)
    self_train("apl", recipe(ignore=True, selection={"d1": 0.05, "hard_nms": 0.5}), data, options)
    rows = json.loads((tmp_path / "run" / "rounds.json").read_text())
    assert [row["round"] for row in rows] == [0, 1, 2]
    for number in (1, 2):
        labels = Segments.from_parquet(tmp_path / "run" / f"round-{number}" / "labels.parquet")
        found = by_source(labels)
        assert {source.rpartition("@")[2] for source in labels.codes("source")[1]} == {str(number)}
        assert {row[0] for row in found["given"]} == set(FULL)
        assert {row[0] for row in found["apl/label"]} <= {"v6", "v7", "v8", "v9"}
        numbers = rows[number]["selection"]
        assert numbers["labels_per_video"] * 4 == len(found["apl/label"]) + len(found.get("apl/mined", ()))
        assert rows[number]["labels"] == len(labels) and set(found) <= {"given", "apl/label", "apl/mined"}
        zones = Segments.from_parquet(tmp_path / "run" / f"round-{number}" / "ignored.parquet")
        assert set(zones.codes("source")[1]) <= {f"apl/ignore@{number}"} and numbers["left"] == len(zones)
    events = [json.loads(line) for line in (tmp_path / "run" / "events.jsonl").read_text().splitlines()]
    of_icd = [event["kind"] for event in events if event.get("name") == "apl/icd"]
    assert of_icd.count("stage") == 1, "trained once for all rounds"


def test_a_run_without_full_labels_ends_before_it_starts(tmp_path: Path) -> None:
    bare, _ = invent(tmp_path / "data", videos=3)
    with pytest.raises(RunError, match="no training video has full labels"):
        self_train("apl", recipe(), bare, Options(tmp_path / "run", tmp_path / "store", local=True))
