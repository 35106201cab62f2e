"""POTLoc's base proposer, a configuration of the snippet proposer: its released inference, written out."""

from __future__ import annotations

import numpy as np
import pytest

from tad.methods.common.candidates import CandidateConfig, candidates
from tad.methods.snippet.proposer import SnippetProposer
from tad.recipe.recipe import load_recipe

SECONDS = 0.64
"""Of a snippet."""
THRESHOLD = 0.617
"""Not the published 0.6: on a grid of 0.08 s some overlaps are 0.6, and rounding alone says which side they are on."""


def released(cas: np.ndarray, actionness: np.ndarray, video: np.ndarray) -> list[tuple[int, float, float, float]]:
    """(class, score, start, end in seconds) of one video, best first in each class; methods of the released code."""

    def fine(curve: np.ndarray) -> np.ndarray:
        at = np.arange(8 * len(curve)) / 8
        left = np.minimum(at.astype(int), len(curve) - 2)
        return curve[left] + (at - left) * (curve[left + 1] - curve[left])

    def runs(mask: np.ndarray) -> list[tuple[int, int]]:
        found, start = [], None
        for t, on in enumerate([*mask, False]):
            if on and start is None:
                start = t
            elif not on and start is not None:
                found.append((start, t - 1))
                start = None
        return found

    def contrast(signal: np.ndarray, i: int, j: int) -> float:
        margin = 0.2 * (j - i + 1)
        around = [*signal[max(0, int(np.floor(i - margin + 1e-9))) : i], *signal[j + 1 : int(j + margin + 1e-9) + 1]]
        return float(np.mean(signal[i : j + 1]) - (np.mean(around) if around else 0.0))

    results = []
    shared = fine(actionness)
    for c in [c for c in range(len(video)) if video[c] >= 0.65] or [int(np.argmax(video))]:
        curve, rows = fine(cas[:, c]), []
        for k in range(8):
            zeroed = np.where(curve < round(0.025 * k, 3), 0.0, curve)
            rows += [(i, j, contrast(zeroed, i, j)) for i, j in runs(zeroed > 0)]
        for k in range(28):
            rows += [(i, j, contrast(curve, i, j)) for i, j in runs(shared >= round(0.3 + 0.025 * k, 3))]
        left = sorted(((s + 0.25 * video[c], i * 0.08, (j + 1) * 0.08) for i, j, s in rows), key=lambda r: -r[0])
        while left:
            best, *others = left
            results.append((c, *best))
            left = []
            for other in others:
                inter = min(best[2], other[2]) - max(best[1], other[1]) + 1
                union = (best[2] - best[1]) + (other[2] - other[1]) + 2 - max(inter, 0)
                if max(inter, 0) / union < THRESHOLD:
                    left.append(other)
    return results


@pytest.mark.parametrize("seed", range(4))
def test_the_released_recipe_infers_as_the_released_code(seed: int) -> None:
    proposer = load_recipe("potloc-released").proposer
    assert isinstance(proposer, SnippetProposer)
    rng = np.random.default_rng(seed)
    rows = int(rng.integers(20, 90))
    smooth = np.convolve(rng.random(rows + 8), np.ones(9) / 9, mode="valid")
    actionness = np.clip((smooth - 0.4) * 4, 0.01, 0.99)
    cas = actionness[:, None] * rng.random((rows, 3)) ** 2
    video = np.array([[0.9, 0.3, 0.7], [0.2, 0.6, 0.1]][seed % 2])
    assert proposer.candidates.iou_threshold == 0.6
    config = proposer.candidates.model_copy(update={"iou_threshold": THRESHOLD})
    found = candidates(cas, actionness, video, np.zeros(0, np.int64), config, 1 / SECONDS)
    mine = np.column_stack([found.labels, found.scores, found.spans * SECONDS])
    want = np.array(released(cas, actionness, video))
    assert len(mine) == len(want) > 10
    order = [np.lexsort(np.round(rows, 4).T[::-1]) for rows in (mine, want)]
    np.testing.assert_allclose(mine[order[0]], want[order[1]], atol=1e-5)


def test_the_bonus_is_a_share_of_the_videos_score_and_hard_suppression_drops() -> None:
    rng = np.random.default_rng(0)
    cas, video = rng.random((60, 2)), np.array([0.9, 0.6])
    plain, more, hard = (
        candidates(cas, cas[:, 0], video, np.array([0, 1]), CandidateConfig.model_validate(options))
        for options in (
            {"suppression": "none"},
            {"suppression": "none", "video_bonus": 0.25},
            {"suppression": "nms", "iou_threshold": 0.3},
        )
    )
    np.testing.assert_allclose(more.scores - plain.scores, 0.25 * video[plain.labels], atol=1e-6)
    before = {(*s, c): q for s, c, q in zip(plain.spans.tolist(), plain.labels.tolist(), plain.scores, strict=True)}
    after = {(*s, c): q for s, c, q in zip(hard.spans.tolist(), hard.labels.tolist(), hard.scores, strict=True)}
    assert 0 < len(after) < len(before) and all(before[key] == q for key, q in after.items())
