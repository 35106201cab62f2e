"""Protocol `thumos14`: against a slow evaluator written from the THUMOS toolkit's rule, by hand, and on real data."""

from __future__ import annotations

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from tad.commands.evaluate import evaluate as command
from tad.data.dataset import Dataset
from tad.data.segments import Segments
from tad.evaluation.evaluator import evaluate, precision_recall
from tad.evaluation.subset import Subset
from tad.prepare.import_hrpro import import_hrpro

Row = tuple[str, str, float, float]


def overlap(a, b) -> float:
    """Shared time by the time from the first start to the last end; ends in any order."""
    (a0, a1), (b0, b1) = sorted(a), sorted(b)
    shared = min(a1, b1) - max(a0, b0)
    return shared / (max(a1, b1) - min(a0, b0)) if shared > 0 else 0.0


def slow_ap(detections, truth, ambiguous, label, threshold) -> float:
    """One class at one threshold. detections: (video, class, start, end, score); truth: (video, class, start, end)."""
    scored = []
    for video in sorted({d[0] for d in detections} | {g[0] for g in truth}):
        found = [d for d in detections if d[:2] == (video, label)]
        found.sort(key=lambda d: (-d[4], d[2], d[3]))
        free = list(range(len(found)))
        for g in (g for g in truth if g[:2] == (video, label)):
            if not free:
                break
            best = max(free, key=lambda k: overlap(found[k][2:4], g[2:4]))  # the first of equal ones
            if overlap(found[best][2:4], g[2:4]) > threshold:
                free.remove(best)
        for k, d in enumerate(found):
            if k not in free:
                scored.append((-d[4], video, d[2], d[3], True))
            elif not any(overlap(d[2:4], interval) > 0 for interval in ambiguous.get(video, ())):
                scored.append((-d[4], video, d[2], d[3], False))
    scored.sort(key=lambda s: s[:4])
    right, total = 0, 0.0
    for rank, row in enumerate(scored, start=1):
        if row[4]:
            right += 1
            total += right / rank
    return total / sum(g[1] == label for g in truth)


def table(rows) -> Segments:
    if not rows:
        return Segments.empty()
    video, label, start, end, *score = zip(*rows, strict=True)
    return Segments.of(video, start, end, label, *map(list, score))


TIME = st.integers(0, 30)
PLACE = st.tuples(st.sampled_from("ab"), st.sampled_from("cd"), TIME, st.integers(1, 10))
TRUTH = st.lists(PLACE.map(lambda p: (p[0], p[1], p[2], p[2] + p[3])), min_size=1, max_size=10)
FOUND = st.lists(
    st.tuples(PLACE, st.integers(0, 4)).map(lambda p: (*p[0][:3], p[0][2] + p[0][3], p[1] / 4)), max_size=18
)
AMBIGUOUS = st.dictionaries(st.sampled_from("ab"), st.lists(st.tuples(TIME, st.just(35)), max_size=2), max_size=2)


@settings(max_examples=100, deadline=None)
@given(TRUTH, FOUND, AMBIGUOUS, st.sampled_from([0.1, 0.3, 0.5, 0.7]))
def test_equals_the_slow_evaluator(truth, found, ambiguous, threshold):
    result = evaluate(table(found), table(truth), [threshold], "thumos14", ambiguous, videos=["a", "b"])
    expected = [slow_ap(found, truth, ambiguous, label, threshold) for label in result.classes]
    np.testing.assert_allclose(result.ap[:, 0], expected, rtol=0, atol=1e-12)


def test_a_true_segment_takes_the_best_fit_whatever_its_score():
    """The better fit of lower score is right, the higher score is wrong; ActivityNet's rule has it the other way."""
    gt, found = table([("v", "c", 0, 10)]), table([("v", "c", 0, 8, 0.9), ("v", "c", 0, 10, 0.1)])
    assert evaluate(found, gt, [0.5], "thumos14").average == pytest.approx(1 / 2)
    assert evaluate(found, gt, [0.5], "anet").average == 1


def test_the_order_of_the_file_decides():
    """The first true segment takes the only detection, although it fits the second better."""
    first, second = ("v", "c", 0, 10), ("v", "c", 4, 14)
    found = table([("v", "c", 3, 13, 0.9), ("v", "c", 0, 30, 0.5)])
    assert evaluate(found, table([first, second]), [0.4], "thumos14").average == pytest.approx(1 / 2)
    # The other way round the second detection still fits none, so only who is found changes, not how many.
    assert evaluate(found, table([second, first]), [0.4], "thumos14").average == pytest.approx(1 / 2)
    found = table([("v", "c", 3, 13, 0.9), ("v", "c", 5, 16, 0.5)])
    assert evaluate(found, table([first, second]), [0.5], "thumos14").average == pytest.approx(1)
    assert evaluate(found, table([second, first]), [0.5], "thumos14").average == pytest.approx(0.5)


def test_above_the_threshold_and_not_at_it():
    gt, found = table([("v", "c", 0, 10)]), table([("v", "c", 0, 5, 0.9)])
    assert evaluate(found, gt, [0.5], "thumos14").average == 0
    assert evaluate(found, gt, [0.5], "anet").average == 1


def test_precision_is_not_interpolated():
    """Hits at ranks 2 and 3: (1/2 + 2/3) / 2, where the envelope would give 2/3."""
    gt = table([("v", "c", 0, 10), ("v", "c", 20, 30)])
    found = table([("v", "c", 50, 60, 0.9), ("v", "c", 0, 10, 0.8), ("v", "c", 20, 30, 0.7)])
    assert evaluate(found, gt, [0.5], "thumos14").average == pytest.approx((1 / 2 + 2 / 3) / 2)
    assert evaluate(found, gt, [0.5], "anet").average == pytest.approx(2 / 3)


def test_ambiguous_intervals_excuse_misses_only():
    gt = table([("v", "c", 0, 10)])
    found = table([("v", "c", 50, 60, 0.9), ("v", "c", 0, 10, 0.8), ("w", "c", 50, 60, 0.1)])
    everywhere = {"v": [(0.0, 100.0)]}
    result = evaluate(found, gt, [0.5], "thumos14", everywhere, videos=["v", "w"])
    assert result.average == 1 and result.counts["detections_ambiguous"] == 2 and result.counts["detections"] == 3
    assert precision_recall(found, gt, "c", 0.5, "thumos14", everywhere)[1].tolist() == [1.0, 0.5]
    assert evaluate(found, gt, [0.5], "thumos14", {"v": [(60.0, 70.0)]}).average == 0.5  # they touch and share nothing


def test_real_detections(shared, tmp_path):
    """Perturbed truth on THUMOS14's test videos with the official ambiguous intervals: as the slow evaluator."""
    import_hrpro(shared("data", "thumos14"), tmp_path / "data", features="none")
    target = Subset.of_dataset(Dataset.open(tmp_path / "data"), "test")
    gt, rng = target.ground_truth, np.random.default_rng(0)
    assert sum(map(len, target.ambiguous.values())) == 87 and len(gt.start) > 3000
    copies = np.repeat(np.arange(len(gt.start)), 3)
    length = (gt.end - gt.start)[copies]
    start = gt.start[copies] + rng.normal(0, 0.3, len(copies)) * length
    end = start + length * np.exp(rng.normal(0, 0.4, len(copies)))
    rows = [
        (str(v), str(c), max(float(s), 0.0), float(e), float(q))
        for v, c, s, e, q in zip(
            gt.video_id[copies], gt.label[copies], start, end, rng.integers(0, 500, len(copies)) / 500, strict=True
        )
        if e > max(s, 0)
    ]
    wild = [(v, "Diving", a + 0.1, b, 0.7) for v, intervals in target.ambiguous.items() for a, b in intervals]
    found = table(rows + wild)
    result = target.evaluate(found, [0.3, 0.5], "thumos14")
    known = rows + wild
    truth = list(zip(gt.video_id.tolist(), gt.label.tolist(), gt.start.tolist(), gt.end.tolist(), strict=True))
    expected = [
        slow_ap([d for d in known if d[1] == c], [g for g in truth if g[1] == c], target.ambiguous, c, 0.5)
        for c in ("Diving", "Billiards")
    ]
    got = [result.ap[result.classes.index(c), 1] for c in ("Diving", "Billiards")]
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-12)
    assert result.average != pytest.approx(target.evaluate(found, [0.3, 0.5], "anet").average, abs=1e-3)


def test_reversed_ends_are_swapped(tmp_path):
    """As the toolkit does; a row of no length is a false positive."""
    (tmp_path / "gt.json").write_text(
        '{"database": {"v": {"subset": "test", "annotations": [{"segment": [2, 8], "label": "c"}]}}}'
    )
    (tmp_path / "found.txt").write_text("v.mp4 8 2 7 0.9\nv 2 2 7 0.95\n")
    (tmp_path / "detclasslist.txt").write_text("7 c\n9 d\n")
    arguments = [str(tmp_path / "found.txt"), "--annotations", str(tmp_path / "gt.json"), "--subset", "test"]
    arguments += ["--classes", str(tmp_path / "detclasslist.txt"), "--tiou", "0.5", "--protocol"]
    result = CliRunner().invoke(command, [*arguments, "thumos14"], catch_exceptions=False)
    assert "lines of the THUMOS toolkit, 2 rows" in result.output and "mAP       50.00" in result.output
    assert "1 detections of no length" in result.output and "none are given" in result.output
    result = CliRunner().invoke(command, [*arguments, "anet"], catch_exceptions=False)
    assert "mAP        0.00" in result.output and "2 detections of no length" in result.output
