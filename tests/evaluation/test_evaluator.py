"""mAP: golden vectors of two published evaluators, a real challenge entry, hand-made cases, properties, bad input."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.references.mean_ap import case, loop_mean_ap
from tad.commands.evaluate import TIoUs
from tad.commands.evaluate import evaluate as command
from tad.data.segments import Segments
from tad.errors import ConfigError, DataError
from tad.evaluation.evaluator import evaluate, precision_recall
from tad.evaluation.ground_truth import RawGroundTruth
from tad.evaluation.subset import Subset
from tad.prepare.import_hrpro import import_hrpro
from tests.support.annotated import annotated


def found(*rows: tuple[str, str, float, float, float]) -> Segments:
    """Detections from (video, label, start, end, score)."""
    video, label, start, end, score = zip(*rows, strict=True) if rows else ([],) * 5
    return Segments.of(video, start, end, label, score)


def truth(*rows: tuple[str, str, float, float]) -> Segments:
    """Ground truth from (video, label, start, end)."""
    video, label, start, end = zip(*rows, strict=True)
    return Segments.of(video, start, end, label)


def raw(rows: list[list[Any]], videos: list[str]) -> RawGroundTruth:
    """Ground truth of the golden file: (video, start, end, class number)."""
    columns = list(zip(*rows, strict=True))
    return RawGroundTruth(
        videos,
        np.array(columns[0]),
        np.array(columns[1], float),
        np.array(columns[2], float),
        np.array([str(c) for c in columns[3]]),
    )


# -- published numbers -------------------------------------------------------------------------------------------------


def golden_check(data: dict[str, Any], tious: list[float], expected: dict[str, Any], protocol: str, blocked: set[str]):
    rows = [p for p in data["preds"] if p[0] not in blocked]
    gt = raw([g for g in data["gt"] if g[0] not in blocked], [v for v in data["videos"] if v not in blocked])
    result = evaluate(found(*[(v, str(c), s, e, score) for v, s, e, c, score in rows]), gt, tious, protocol)
    assert result.classes == [str(c) for c in expected["classes"]]
    np.testing.assert_allclose(result.ap.T, expected["ap"], rtol=0, atol=1e-9)
    np.testing.assert_allclose(result.mean_ap, expected["mAP"], rtol=0, atol=1e-9)
    assert result.average == pytest.approx(expected["avg"], abs=1e-9)


@pytest.mark.parametrize("number", range(12))
def test_golden(golden, number):
    """Both published evaluators, to 1e-9, but for one known defect of ActionFormer's."""
    document = golden("map")
    expected = document["cases"][number]
    data = document["data"][expected["name"]]
    golden_check(data, expected["tious"], expected["expected_ot"], "opentad", set())
    if "blocked" in expected:
        golden_check(data, expected["tious"], expected["expected_ot_blocked"], "opentad", set(expected["blocked"]))
    if expected["name"] == "label_collision":
        # ActionFormer renumbers classes so that an unknown one collides with a real one (0.75); here it is left out.
        assert expected["expected_af"]["avg"] == pytest.approx(0.75)
        golden_check(data, expected["tious"], expected["expected_ot"], "actionformer", set())
    else:
        golden_check(data, expected["tious"], expected["expected_af"], "actionformer", set())


def test_anet_keeps_copies_and_short_segments(golden):
    data = golden("map")["data"]["duplicate_gt"]
    result = evaluate(found(("a", "0", 0, 10, 0.9), ("a", "1", 0, 10, 0.8)), raw(data["gt"], data["videos"]), [0.5])
    assert dict(zip(result.classes, result.ap[:, 0], strict=True)) == pytest.approx({"0": 1 / 3, "1": 1.0})


def test_gaufuse_golden(golden):
    toy = golden("gaufuse")["eval_toy"]
    second = 16 / 25
    gt = [(f"v{v}", "c", s * second, e * second) for v, s, e in toy["gt[video,start,end] snippets after rounding"]]
    rows = [(f"v{v}", "c", s * second, e * second, q) for v, s, e, q in toy["pred[video,start,end,score]"]]
    for threshold, expected in toy["expected"].items():
        result = evaluate(found(*rows), truth(*gt), [float(threshold)], "gaufuse")
        assert result.average == pytest.approx(expected["AP"], abs=1e-8)
        recall, _ = precision_recall(found(*rows), truth(*gt), "c", float(threshold), "gaufuse")
        np.testing.assert_array_equal(np.diff(recall, prepend=0) > 0, np.array(expected["tp"]) > 0)


def test_challenge_entry(shared, tmp_path):
    """A real ActivityNet entry; its published mAP is .2222 at .5 and .1389 on average. 198 durations are null."""
    arguments = [
        str(shared("data", "evaluator", "activitynet13_upc2016_detections.json")),
        "--annotations",
        str(shared("data", "activitynet13", "activitynet13_val_full_gt.json")),
        "--subset",
        "validation",
        "--tiou",
        "0.5:0.95:0.05",
        "--json",
        str(tmp_path / "out.json"),
    ]
    result = CliRunner().invoke(command, arguments, catch_exceptions=False)
    assert result.exit_code == 0 and "mAP" in result.output
    document = json.loads((tmp_path / "out.json").read_text())
    assert document["mAP"]["0.5"] == pytest.approx(0.2222, abs=5e-5)
    assert document["average"] == pytest.approx(0.1389, abs=5e-5)
    assert list(document["mAP"]) == ["0.5", "0.55", "0.6", "0.65", "0.7", "0.75", "0.8", "0.85", "0.9", "0.95"]
    assert document["averages"] == {"0.5:0.95": document["average"]}
    assert document["counts"]["videos"] == 4926 and document["counts"]["ground_truth"] == 7654
    assert len(document["per_class"]) == 200


def test_thumos_proposals(shared, tmp_path):
    """POTLoc's real base proposals on the training videos: mAP .1-.7 as measured with its own evaluator."""
    import_hrpro(shared("data", "thumos14"), tmp_path / "data", features="none")
    proposals = shared("data", "potloc", "base_proposals.json")
    arguments = [str(proposals), "--data", str(tmp_path / "data"), "--subset", "train", "--json", str(tmp_path / "o")]
    assert CliRunner().invoke(command, arguments, catch_exceptions=False).exit_code == 0
    document = json.loads((tmp_path / "o").read_text())
    published = [0.892, 0.858, 0.800, 0.699, 0.570, 0.397, 0.230]
    assert list(document["mAP"].values()) == pytest.approx(published, abs=6e-4)
    assert set(document["averages"]) == {"0.1:0.5", "0.3:0.7", "0.1:0.7"}


# -- rules by hand -----------------------------------------------------------------------------------------------------


def test_ambiguous_intervals_in_whole_seconds():
    gt = truth(("v", "c", 10, 12), ("v", "c", 50, 60))
    rows = found(("v", "c", 10.2, 12.7, 0.9), ("v", "c", 50, 60, 0.8), ("w", "c", 10, 12, 0.1))
    # 10.2-12.7 covers the seconds 10 and 11; 11.6 rounds to 12, 11.4 to 11.
    for start, left_out in ((11.6, 0), (11.4, 1)):
        counts = evaluate(rows, gt, [0.5], "hrpro", {"v": [(start, 20.0)], "w": []}).counts
        assert counts["detections_ambiguous"] == left_out and counts["detections"] == 3 - left_out
    assert evaluate(rows, gt, [0.5], "anet", {"v": [(0.0, 99.0)]}).counts["detections_ambiguous"] == 0
    assert evaluate(found(("v", "c", 10.2, 10.9, 0.9)), gt, [0.5], "hrpro", {"v": [(0, 99)]}).counts["detections"] == 1


def test_which_videos_count(tmp_path):
    """Other subsets and ignored videos are left out; a video the annotations do not know is a false positive."""
    rows = [("a", "c", 0, 10), ("b", "c", 0, 10), ("x", "c", 0, 10), ("no", "c", 0, 10)]
    roles = {"a": "test", "b": "train", "x": "test", "empty": "test"}
    data = annotated(tmp_path, rows[:3], roles=roles, ignored=["x"])
    detections = found(*[(*r, 0.9) for r in rows[1:]], ("a", "c", 0, 10, 0.5))
    result = Subset.of_dataset(data, "test").evaluate(detections)
    assert result.counts["videos"] == 2 and result.counts["ground_truth"] == 1
    assert result.counts["detections_in_other_videos"] == 2 and result.counts["detections_in_unknown_videos"] == 1
    assert result.average == pytest.approx(0.5)
    bare = Subset.of_file(tmp_path / "annotations.json", "test", ["x"]).evaluate(detections)
    assert bare.to_json() == result.to_json()


def test_classes_without_ground_truth_or_detections():
    gt = truth(("a", "seen", 0, 10), ("a", "never found", 20, 30))
    result = evaluate(found(("a", "seen", 0, 10, 0.5), ("a", "unheard of", 0, 10, 0.9)), gt, [0.3, 0.5])
    assert result.to_json()["per_class"]["seen"] == {
        "ap": {"0.3": 1.0, "0.5": 1.0},
        "average": 1.0,
        "ground_truth": 1,
        "detections": 1,
    }
    assert result.average == pytest.approx(0.5) and result.counts["detections_of_unknown_classes"] == 1
    assert evaluate(Segments.empty(), gt).average == 0


def test_precision_recall():
    gt = truth(("a", "c", 0, 10), ("a", "c", 20, 30), ("b", "c", 0, 10), ("b", "d", 0, 1))
    rows = found(("a", "c", 0, 10, 0.9), ("a", "c", 0, 9, 0.8), ("b", "c", 0, 10, 0.7), ("b", "d", 0, 10, 0.99))
    recall, precision = precision_recall(rows, gt, "c", 0.5)
    np.testing.assert_allclose(recall, [1 / 3, 1 / 3, 2 / 3])
    np.testing.assert_allclose(precision, [1, 1 / 2, 2 / 3])
    with pytest.raises(DataError, match=r"no class 'e'; it has c, d"):
        precision_recall(rows, gt, "e")


def test_tious():
    convert = TIoUs().convert
    assert convert("0.1:0.7:0.1", None, None) == (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7)
    assert len(convert("0.5:0.95:0.05", None, None)) == 10
    assert convert("0.5,0.75,0.95", None, None) == (0.5, 0.75, 0.95)
    assert convert("0.5", None, None) == (0.5,)


# -- properties --------------------------------------------------------------------------------------------------------

TIME = st.integers(0, 40)
PLACES = st.tuples(st.sampled_from("ab"), st.sampled_from("cde"), TIME, st.integers(1, 12))
TRUTHS = st.lists(PLACES, min_size=1, max_size=12).map(lambda rows: truth(*[(v, c, s, s + n) for v, c, s, n in rows]))
DETECTIONS = st.lists(st.tuples(PLACES, st.integers(0, 5)), max_size=20).map(
    lambda rows: found(*[(v, c, s, s + n, score / 5) for (v, c, s, n), score in rows])
)
VIDEOS = ["a", "b"]


@settings(max_examples=60, deadline=None)
@given(TRUTHS, DETECTIONS, st.randoms())
def test_row_order_does_not_matter(gt, detections, random):
    """Equal scores included."""
    order = list(range(len(detections)))
    random.shuffle(order)
    gt_order = np.array(random.sample(range(len(gt)), len(gt)))
    a = evaluate(detections, gt, videos=VIDEOS)
    b = evaluate(detections.take(np.array(order)), gt.take(gt_order), videos=VIDEOS)
    np.testing.assert_array_equal(a.ap, b.ap)


@settings(max_examples=40, deadline=None)
@given(TRUTHS, st.sampled_from(["anet", "hrpro", "actionformer", "opentad"]))
def test_perfect_detections_score_one(gt, protocol):
    whole = gt.replace(score=np.linspace(1, 0.1, len(gt)))
    result = evaluate(whole, gt, [0.5, 1.0], protocol)
    # Copies that a protocol drops from the ground truth stay as detections: false positives, but never ahead of all.
    assert (result.ap > 0).all()
    if not result.counts["ground_truth_left_out"]:
        np.testing.assert_allclose(result.ap, 1)


@settings(max_examples=40, deadline=None)
@given(TRUTHS, DETECTIONS, PLACES)
def test_more_false_positives_never_help(gt, detections, place):
    _, label, start, length = place
    worse = Segments.concat([detections, found(("empty", label, start, start + length, 2.0))])
    a, b = (evaluate(d, gt, videos=[*VIDEOS, "empty"]).ap for d in (detections, worse))
    assert (b <= a + 1e-12).all()


@pytest.mark.parametrize("seed", range(3))
def test_equals_the_published_loop(seed):
    detections, gt = case(videos=30, detections=60, instances=6, seed=seed)
    tious = (0.1, 0.3, 0.5, 0.7)
    np.testing.assert_allclose(evaluate(detections, gt, tious).mean_ap, loop_mean_ap(detections, gt, tious), atol=1e-12)


# -- bad input ---------------------------------------------------------------------------------------------------------

ONE = {"a": [{"segment": [0, 10], "label": "c", "score": 0.5}]}


@pytest.mark.parametrize(
    ("arguments", "results", "message"),
    [
        (["--subset", "tset"], ONE, r"no role or subset 'tset'; dataset.yaml has train \(role train\)"),
        (["--subset", "dev"], ONE, "subset dev has 0 videos|no video in subset dev; found test, train"),
        (["--subset", "train"], ONE, "share no video.*1 videos \\(a\\).*1 videos \\(b\\)"),
        (["--subset", "test"], {"a": [ONE["a"][0] | {"label": "k"}]}, "share no class.*theirs are k, its are c"),
        (["--subset", "test"], {}, "no detections"),
        (["--subset", "test"], {"a": [ONE["a"][0] | {"segment": [5, "x"]}]}, "video a, row 0: end 'x'"),
    ],
)
def test_bad_input(tmp_path, arguments, results, message):
    annotated(tmp_path / "data", [("a", "c", 0, 10), ("b", "c", 0, 10)], roles={"a": "test", "b": "train"})
    (tmp_path / "found.json").write_text(json.dumps({"results": results}))
    with pytest.raises(DataError, match=f"(?s){message}"):
        CliRunner().invoke(
            command,
            [str(tmp_path / "found.json"), "--data", str(tmp_path / "data"), *arguments],
            catch_exceptions=False,
        )


def test_other_tools_video_ids(shared, tmp_path):
    """A real pair that differs in the prefix of the ids: the message shows both."""
    database = json.loads(shared("data", "evaluator", "gt.json").read_text())
    (tmp_path / "gt.json").write_text(json.dumps({"database": database}))
    target = Subset.of_file(tmp_path / "gt.json", "validation")
    with pytest.raises(DataError, match=r"(?s)bYUmtLBL7W4.*v_bYUmtLBL7W4"):
        target.evaluate(Segments.from_file(shared("data", "evaluator", "result.json")))


@pytest.mark.parametrize(
    "value", ["", "x", "0.5:0.3:0.1", "0.1:0.7", "0.1:0.7:0", "0:0.5:0.1", "0.5,0.5", "1.1", "nan"]
)
def test_bad_tiou(tmp_path, value):
    (tmp_path / "found.json").write_text("{}")
    arguments = [str(tmp_path / "found.json"), "--data", str(tmp_path), "--subset", "test", "--tiou", value]
    result = CliRunner().invoke(command, arguments)
    assert result.exit_code == 2 and "LOW:HIGH:STEP such as 0.5:0.95:0.05" in " ".join(result.output.split())


def test_usage(tmp_path):
    (tmp_path / "found.json").write_text(json.dumps({"results": ONE}))
    path = str(tmp_path / "found.json")
    for more in ([], ["--data", str(tmp_path), "--annotations", path]):
        result = CliRunner().invoke(command, [path, "--subset", "test", *more])
        assert result.exit_code == 2 and "either --data DIR or --annotations FILE" in result.output


def test_bad_calls():
    gt = truth(("a", "c", 0, 10))
    with pytest.raises(ConfigError, match="unknown protocol 'thumos'; choose one of anet"):
        evaluate(Segments.empty(), gt, protocol="thumos")
    with pytest.raises(ConfigError, match=r"\(0, 1\]"):
        evaluate(Segments.empty(), gt, [0.0])
    with pytest.raises(DataError, match="no ground truth"):
        evaluate(Segments.empty(), Segments.empty())
