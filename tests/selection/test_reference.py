"""What the score of points compares with: a segment for every point, near the truth, led astray by nothing judged."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from distributed.engine.engine import Engine
from tad.data.dataset import Dataset
from tad.data.segments import Segments
from tad.errors import DataError
from tad.evaluation.ground_truth import ground_truth
from tad.ops.iou import paired_tiou
from tad.prepare.split import split_holdout
from tad.selection.label_free_scores import points_score
from tad.selection.reference import by_proposals, reference
from tests.support.annotated import annotated
from tests.support.rounds import GivenRound, round_of
from tests.support.tiny import TinyEngine, tiny_dataset


def world(folder, hide=True) -> tuple[Dataset, Segments]:
    """Training videos with hidden points, and proposals near the truth: wrong in length by a factor of 1.5 or so."""
    data = tiny_dataset(folder / "data", videos=16, classes=2, dim=8)
    if hide:
        split_holdout(data, None, 0.3, 0, folder / "hidden")
        data = Dataset.open(folder / "hidden")
    return data, disturbed(ground_truth(data, "train"), 0.3, 0.1, seed=0)


def disturbed(truth: Segments, length: float, centre: float, seed: int) -> Segments:
    rng = np.random.default_rng(seed)
    span = truth.end - truth.start
    middle = (truth.start + truth.end) / 2 + rng.normal(0, centre, len(truth)) * span
    half = span / 2 * np.exp(rng.normal(0, length, len(truth)))
    score = rng.uniform(0.4, 0.9, len(truth))
    return truth.replace(start=np.maximum(0, middle - half), end=np.maximum(0.1, middle + half), score=score)


def too_long(data: Dataset, folder) -> tuple[Segments, Engine, GivenRound]:
    """Proposals of a system that makes every action 1.6 times too long, and the round that starts from them."""
    truth = ground_truth(data, "train")
    proposals = scaled(disturbed(truth, 0.1, 0.05, seed=3), 1.6)
    engine = TinyEngine(data, 0, folder)
    return proposals, engine, round_of(engine, proposals=engine.adopt(proposals, "proposals"))


def scaled(segments: Segments, factor: float) -> Segments:
    middle, half = (segments.start + segments.end) / 2, (segments.end - segments.start) / 2 * factor
    return segments.replace(start=np.maximum(0, middle - half), end=middle + half)


@pytest.mark.parametrize("rows", [False, True])
def test_the_reference_has_a_segment_for_every_point_seen_or_held_out(tmp_path, rows):
    data, proposals = world(tmp_path)
    made = reference(too_long(data, tmp_path)[2]) if rows else by_proposals(proposals, data)
    found = list(zip(made.segments.video_ids, made.segments.labels, made.segments.point.tolist(), strict=True))
    want = {
        (v, data.classes[c], t): held
        for v in data.videos("train")
        for points, held in ((data.points(v), False), (data.held_out(v), True))
        for t, c in zip(points.time.tolist(), points.label.tolist(), strict=True)
    }
    assert dict(zip(found, made.judged.tolist(), strict=True)) == want and len(found) == len(want)
    assert made.judged.any() and made.videos == data.videos("train")
    end = np.array([data.duration(v) for v in made.segments.video_ids])
    assert (made.segments.start >= 0).all() and (made.segments.end <= end).all()


def test_the_reference_is_near_the_truth_and_nearer_than_the_proposals(tmp_path):
    data, proposals = world(tmp_path, hide=False)
    made = by_proposals(proposals, data).segments
    truth = ground_truth(data, "train")

    def mean(segments: Segments) -> float:
        """Mean over instances of the largest tIoU."""
        total = 0.0
        for v, c, span in zip(truth.video_ids, truth.labels, truth.spans, strict=True):
            mine = segments.filter(np.array(segments.video_ids) == v)
            mine = mine.filter(np.array(mine.labels) == c)
            total += paired_tiou(mine.spans, np.repeat(span[None], len(mine), axis=0)).max(initial=0.0)
        return total / len(truth)

    assert mean(made) > mean(proposals) > 0.5
    assert by_proposals(proposals, data).judged.all(), "without held-out points all are judged"


def test_better_detections_score_better(tmp_path):
    data, proposals = world(tmp_path)
    made, truth = by_proposals(proposals, data), ground_truth(data, "train")
    scores = [points_score(disturbed(truth, noise, noise / 3, seed=9), made) for noise in (0.1, 0.4, 0.8, 1.6)]
    assert scores == sorted(scores, reverse=True) and scores[0] > 2 * scores[3]


def test_rows_show_lengths_that_proposals_have_wrong(tmp_path):
    """Detections of the right lengths against those of the proposals' lengths: only the rows tell."""
    data = tiny_dataset(tmp_path / "data", videos=16, classes=2, dim=32, difficulty=0.0)
    proposals, _, first = too_long(data, tmp_path)
    truth = disturbed(ground_truth(data, "train"), 0.05, 0.02, seed=5)
    values = {
        made: [points_score(scaled(truth, factor), against) for factor in (1.0, 1.6)]
        for made, against in (("rows", reference(first)), ("proposals", by_proposals(proposals, data)))
    }
    assert values["rows"][0] > values["rows"][1] + 0.05
    assert values["proposals"][0] < values["proposals"][1]


def test_the_reference_of_rows_is_made_once(tmp_path):
    data, _ = world(tmp_path)
    _, engine, first = too_long(data, tmp_path)
    made = reference(first)
    log = engine.record.folder / "events.jsonl"
    before = log.read_text().count("stage-done")
    again = reference(first)
    assert before and log.read_text().count("stage-done") == before
    assert again.segments.digest() == made.segments.digest() and (again.judged == made.judged).all()


def test_a_reference_without_any_proposal_still_has_every_point(tmp_path):
    data, _ = world(tmp_path)
    made = by_proposals(Segments.empty(), data)
    assert len(made.segments) == sum(
        len(p.time) for v in data.videos("train") for p in (data.points(v), data.held_out(v))
    )


def test_no_points(tmp_path):
    data = annotated(tmp_path / "data", [("a", "run", 10, 20)], [("d", "run", 3.0)], roles={"d": "test"})
    with pytest.raises(DataError, match=r"the 1 train videos have no points"):
        by_proposals(Segments.empty(), data)


def test_boundaries_are_out_of_reach(tmp_path):
    """Neither importing the module nor scoring imports the reader of boundaries."""
    data, proposals = world(tmp_path)
    proposals.to_parquet(tmp_path / "proposals.parquet")
    code = (
        "import sys\n"
        "from tad.selection.label_free_scores import points_score\n"
        "from tad.selection.reference import by_proposals\n"
        "from tad.data.dataset import Dataset\n"
        "from tad.data.segments import Segments\n"
        f"found = Segments.from_parquet({str(tmp_path / 'proposals.parquet')!r})\n"
        f"assert points_score(found, by_proposals(found, Dataset.open({str(data.root)!r}))) > 0\n"
        "sys.exit('tad.evaluation.ground_truth' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
