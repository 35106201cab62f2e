"""LACP's completeness learning: the search against a plain one, the losses by hand, and both in training."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tad.data.dataset import Dataset
from tad.methods.hrpro.proposer import HrproProposer, HrproTraining
from tad.methods.snippet.complete_segments import search
from tad.methods.snippet.completeness import Found, feature_loss, find_segments, score_loss
from tad.methods.snippet.mining import Mined, mine
from tad.methods.snippet.proposer import SnippetProposer
from tad.methods.snippet.training import SnippetTrain, TrainingConfig
from tad.ops.grouping import outer_inner_contrast
from tad.recipe.recipe import load_recipe
from tad.stages import Context, one_worker
from tests.support.tiny import TinyEngine, tiny_dataset

# -- the search ------------------------------------------------------------------------------------------------------


def contrast(curve: list[float], first: int, last: int) -> float:
    """Rows first..last, both inclusive; margins of a quarter of the length, cut to whole rows outwards-left."""
    length = last - first + 1
    outside = list(range(max(0, int(np.floor(first - length / 4))), first))
    outside += range(last + 1, min(len(curve) - 1, int(np.floor(last + length / 4))) + 1)
    outer = sum(curve[t] for t in outside) / len(outside) if outside else 0.0
    return sum(curve[first : last + 1]) / length - outer


def plain_search(curve: list[float], known: list[int], budget: int, floor: float = 0.1, ties: int = 4) -> list[int]:
    """The published beam row by row, with a bound on ties; a hypothesis is the list of rows that begin a segment."""
    cores: list[list[int]] = []  # kind, first and last known row
    for t, kind in enumerate(known):
        if kind >= 0 and cores and cores[-1][0] == kind:
            cores[-1][2] = t
        elif kind >= 0:
            cores.append([kind, t, t])
    complement = [1 - x for x in curve]

    def value(cuts: list[int], end: int | None = None) -> float:
        """Mean over the finished segments; with `end` also the one that ends there."""
        edges = [0, *cuts] + ([] if end is None else [end])
        total = 0.0
        for i, (first, last) in enumerate(pairwise(edges)):
            total += contrast(curve if cores[i][0] else complement, first, last - 1)
        return total / (len(edges) - 1) if len(edges) > 1 else float("inf")

    live: list[list[int]] = [[]]
    for t in range(1, len(curve)):
        grown, started = [], []
        for cuts in live:
            now = len(cuts)
            if now + 1 == len(cores) or t <= cores[now][2]:
                grown.append(cuts)
            elif t == cores[now + 1][1]:
                grown.append([*cuts, t])
            else:
                grown.append(cuts)
                started.append([*cuts, t])
        live = grown + started
        scores = [value(cuts) for cuts in live]
        best = live[int(np.argmax(scores))]
        live = [cuts for cuts, q in zip(live, scores, strict=True) if q >= floor or cuts is best]
        if len(live) > budget:
            bar = sorted((value(cuts) for cuts in live), reverse=True)[budget - 1]
            live = [cuts for cuts in live if value(cuts) >= bar]
        spare = [cuts for cuts in live if cuts is not best][: ties * budget - 1]
        live = [cuts for cuts in live if cuts is best or cuts in spare]
    return max(live, key=lambda cuts: value(cuts, len(curve)))


def cuts_of(curve: np.ndarray, known: np.ndarray, budget: int = 25) -> list[int]:
    """Switching times of the product's search, after checks that hold for any result."""
    found = search(curve, known, budget)
    assert found.spans[0, 0] == 0 and found.spans[-1, 1] == len(curve)
    assert (found.spans[1:, 0] == found.spans[:-1, 1]).all() and (found.spans[:, 1] > found.spans[:, 0]).all()
    assert (found.action[1:] != found.action[:-1]).all()
    for (first, last), action in zip(found.spans, found.action, strict=True):
        inside = known[first:last]
        assert (inside[inside >= 0] == action).all() and (inside >= 0).any()
    kinds = [
        outer_inner_contrast(curve if action else 1 - curve, span[None], symmetric=False)[0]
        for span, action in zip(found.spans, found.action, strict=True)
    ]
    assert found.score == pytest.approx(np.mean(kinds))
    return found.spans[1:, 0].tolist()


@st.composite
def problems(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    length = draw(st.integers(1, 60))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    width = draw(st.sampled_from([1, 3, 7]))
    curve = np.convolve(rng.random(length + width - 1), np.ones(width) / width, "valid")
    if draw(st.booleans()):
        curve = (curve - curve.min()) / max(float(np.ptp(curve)), 1e-9)
    if draw(st.booleans()):
        curve = np.round(4 * curve) / 4  # many equal hypotheses, and sums without rounding
    share = draw(st.sampled_from([0.05, 0.2, 0.4]))
    known = rng.choice([-1, 0, 1], length, p=[1 - 2 * share, share, share])
    known[rng.integers(length)] = 1
    return curve, known


@settings(max_examples=150, deadline=None)
@given(problems(), st.sampled_from([1, 2, 5, 25]))
def test_equals_the_plain_search(problem: tuple[np.ndarray, np.ndarray], budget: int) -> None:
    curve, known = problem
    assert cuts_of(curve, known, budget) == plain_search(curve.tolist(), known.tolist(), budget)


def test_a_wide_beam_finds_the_best_of_all_segmentations() -> None:
    """Two switches, all pairs of times tried; pruning at the floor does not bite on such a curve."""
    rng = np.random.default_rng(3)
    curve = np.clip(np.r_[np.full(12, 0.2), np.full(9, 0.7), np.full(11, 0.2)] + rng.normal(0, 0.15, 32), 0, 1)
    known = np.full(32, -1)
    known[[2, 16, 29]] = [0, 1, 0]

    def mean(first: int, last: int) -> float:
        low, high = list(1 - curve), list(curve)
        return float(np.mean([contrast(low, 0, first - 1), contrast(high, first, last - 1), contrast(low, last, 31)]))

    best = max(((i, j) for i in range(3, 17) for j in range(17, 30)), key=lambda pair: mean(*pair))
    assert cuts_of(curve, known, 10_000) == list(best)
    assert search(curve, known, 10_000).score == pytest.approx(mean(*best))


def test_steps_are_found_at_their_ends() -> None:
    curve = np.zeros(30)
    curve[4:9] = curve[17:25] = 1
    known = np.full(30, -1)
    known[[1, 6, 12, 20, 28]] = [0, 1, 0, 1, 0]
    found = search(curve, known)
    assert found.spans.tolist() == [[0, 4], [4, 9], [9, 17], [17, 25], [25, 30]]
    assert found.action.tolist() == [False, True, False, True, False]
    assert found.score == pytest.approx(1.0)


def test_a_class_known_at_the_ends_and_one_kind_only() -> None:
    curve = np.r_[np.ones(4), np.zeros(6)]
    known = np.full(10, -1)
    known[[0, 1, 7]] = [1, 1, 0]
    assert search(curve, known).spans.tolist() == [[0, 4], [4, 10]]
    whole = search(curve, np.where(known == 0, -1, known))
    assert whole.spans.tolist() == [[0, 10]] and whole.score == pytest.approx(0.4)
    assert search(np.array([0.3]), np.array([1])).spans.tolist() == [[0, 1]]


def test_the_floor_drops_a_weak_start() -> None:
    """Both early switches end the first segment with a contrast below 0.1, so the forced one is all that is left."""
    curve = np.array([0.5, 0.5, 0.5, 0.5, 0.9, 0.9])
    known = np.array([0, -1, -1, -1, 1, 1])
    assert cuts_of(curve, known) == plain_search(curve.tolist(), known.tolist(), 25) == [4]


def test_equal_hypotheses_are_bounded() -> None:
    """Long flat stretches where every switching time is as good as any other: without a bound the beam explodes."""
    curve = np.zeros(400)
    known = np.full(400, -1)
    known[20::40], known[::40] = 1, 0
    curve[known == 1] = 1
    found = search(curve, known)
    assert len(found.spans) == 20 and found.score > 0.2


def test_bad_input_to_the_search() -> None:
    with pytest.raises(ValueError, match=r"curve \[T\] and known \[T\]"):
        search(np.zeros(3), np.zeros(4))
    with pytest.raises(ValueError, match="no row is known"):
        search(np.zeros(3), np.full(3, -1))
    with pytest.raises(ValueError, match="budget must be at least 1"):
        search(np.zeros(3), np.zeros(3), 0)


# -- segments of a batch ---------------------------------------------------------------------------------------------


def invented(lengths: list[int], classes: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, Mined, torch.Tensor]:
    """cas [B, T, C], points, mined rows and mask of videos with random scores; padding holds tempting values."""
    generator = torch.Generator().manual_seed(seed)
    batch, longest = len(lengths), max(lengths)
    mask = torch.arange(longest)[None] < torch.tensor(lengths)[:, None]
    points = torch.rand(batch, longest, classes, generator=generator) < 0.08
    background = torch.rand(batch, longest, generator=generator)
    cas = torch.rand(batch, longest, classes, generator=generator) * (1 - background[..., None])
    points = points & mask[..., None]
    return cas, points, mine(background, points, mask), mask


def test_classes_of_a_video_are_each_others_background() -> None:
    action = torch.zeros(1, 9, 2, dtype=torch.bool)
    action[0, 2, 0] = action[0, 6, 1] = True
    cas = torch.zeros(1, 9, 2)
    cas[0, 1:4, 0] = cas[0, 5:8, 1] = 1
    mined = Mined(action, torch.zeros(1, 9, dtype=torch.bool))
    found = find_segments(cas, mined, torch.ones(1, 9, dtype=torch.bool), 25)
    assert found.label.tolist() == [0, 0, 1, 1] and found.action.tolist() == [True, False, False, True]
    assert found.span[0, 0] == 0 and found.span[0, 1] in (3, 4, 5)
    mined.background[0, 0] = mined.background[0, 8] = mined.background[0, 4] = True
    found = find_segments(cas, mined, torch.ones(1, 9, dtype=torch.bool), 25)
    assert found.span.tolist() == [[0, 1], [1, 4], [4, 9], [0, 5], [5, 8], [8, 9]]


def test_videos_without_points_or_without_background_have_no_segments() -> None:
    cas, points, mined, mask = invented([7, 1, 5], 2)
    points[:] = False
    points[1, 0, 1] = points[2, :, 0] = True
    mined = mine(torch.zeros(3, 7), points & mask[..., None], mask)
    found = find_segments(cas, mined, mask, 25)
    assert len(found.video) == len(found.span) == len(found.action) == 0
    assert score_loss(cas, mask, found).tolist() == [0, 0, 0]
    assert feature_loss(torch.rand(3, 7, 4), found).tolist() == [0, 0, 0]


def alone(found: Found, video: int) -> Found:
    """One video's segments, as of a batch of one."""
    use = found.video == video
    return Found(found.video[use] * 0, found.label[use], found.span[use], found.action[use])


def test_a_batch_equals_one_video_at_a_time() -> None:
    lengths = [40, 7, 23, 90]
    cas, _, mined, mask = invented(lengths, 3)
    found = find_segments(cas, mined, mask, 25)
    together = score_loss(cas, mask, found)
    assert found.video.unique().numel() >= 3 and (together > 0).sum() >= 3
    for video, length in enumerate(lengths):
        part = slice(video, video + 1), slice(length)
        single = find_segments(cas[part], Mined(mined.action[part], mined.background[part]), mask[part], 25)
        for got, want in zip(single, alone(found, video), strict=True):
            torch.testing.assert_close(got, want)
        torch.testing.assert_close(score_loss(cas[part], mask[part], single)[0], together[video])


# -- losses ----------------------------------------------------------------------------------------------------------


def segments(*rows: tuple[int, int, int, int, bool]) -> Found:
    """From (video, class, first, last, action)."""
    video, label, first, last, action = (torch.tensor(column) for column in zip(*rows, strict=True))
    return Found(video, label, torch.stack([first, last], dim=1), action)


def test_score_loss_by_hand() -> None:
    """Rows 0.2 with four rows of 0.8, whose first neighbour on the left is 0.4; the second video has none."""
    cas = torch.full((2, 12, 1), 0.2)
    cas[0, 4:8], cas[0, 3] = 0.8, 0.4
    found = segments((0, 0, 0, 4, False), (0, 0, 4, 8, True), (0, 0, 8, 12, False))
    action = 0.8 - (0.4 + 0.2) / 2
    left = (0.8 * 3 + 0.6) / 4 - 0.2  # margin on the right: one row of 1 - 0.8
    right = 0.8 - 0.2  # margin on the left: one row of 1 - 0.8
    want = ((1 - action) + (1 - left + 1 - right) / 2) ** 2
    got = score_loss(cas, torch.ones(2, 12, dtype=torch.bool), found)
    assert got.tolist() == pytest.approx([want, 0])


def test_score_loss_pools_classes_and_stops_at_padding() -> None:
    """Margins end with the video, not with the padding; a segment without margins has an outer mean of 0."""
    cas = torch.full((1, 20, 2), 0.9)
    cas[0, :8, 0], cas[0, :8, 1] = 0.5, 0.25
    mask = torch.arange(20)[None] < 8
    found = segments((0, 0, 0, 8, True), (0, 1, 0, 8, True))
    assert score_loss(cas, mask, found).tolist() == pytest.approx([((0.5 + 0.75) / 2) ** 2])


def test_feature_loss_by_hand() -> None:
    """Two actions along x and one rest at 60 degrees to them; constant within a segment, so any draw is the same."""
    rest = torch.tensor([0.5, 3**0.5 / 2])
    embedding = torch.zeros(2, 12, 2)
    embedding[0, :4], embedding[0, 4:8], embedding[0, 8:] = torch.tensor([2.0, 0.0]), 3 * rest, torch.tensor([1.0, 0.0])
    embedding[1] = 1
    found = segments(
        (0, 1, 0, 4, True),
        (0, 1, 4, 8, False),
        (0, 1, 8, 12, True),
        (0, 0, 0, 4, True),
        (0, 0, 4, 12, False),
        (1, 1, 0, 5, True),
        (1, 1, 5, 12, False),
    )
    want = np.log1p(np.exp((0.5 - 1) / 0.1))  # class 0 and the second video have one action only
    assert feature_loss(embedding, found).tolist() == pytest.approx([want, 0], rel=1e-3)


def test_feature_rows_come_from_each_third() -> None:
    """Each third of the actions has a direction of its own, so any draw of one row from each gives the same mean."""
    embedding = torch.zeros(1, 21, 4)
    for first in (0, 12):
        for third in range(3):
            embedding[0, first + 3 * third : first + 3 * third + 3, third] = 1
    embedding[0, 9:12, 3] = 1
    found = segments((0, 0, 0, 9, True), (0, 0, 9, 12, False), (0, 0, 12, 21, True))
    assert feature_loss(embedding, found).item() == pytest.approx(np.log1p(np.exp(-10)), abs=5e-6)
    short = segments((0, 0, 0, 1, True), (0, 0, 1, 19, False), (0, 0, 19, 21, True))
    assert torch.isfinite(feature_loss(embedding, short)).all()


def test_gradients_lift_actions_over_the_rest_and_are_finite() -> None:
    cas, _, mined, mask = invented([40, 7, 23], 3)
    cas = torch.where(cas < 0.1, torch.zeros(()), cas).requires_grad_()
    found = find_segments(cas, mined, mask, 25)
    (grad,) = torch.autograd.grad(score_loss(cas, mask, found).sum(), cas)
    assert torch.isfinite(grad).all() and (grad[~mask] == 0).all()
    middle = found.span.sum(1) // 2
    at = grad[found.video, middle, found.label]
    assert (at[found.action] <= 0).float().mean() > 0.6 and (at[~found.action] >= 0).float().mean() > 0.6
    embedding = torch.relu(torch.randn(3, 40, 5)).requires_grad_()
    with torch.no_grad():
        embedding[0, :20] = 0  # ReLU may leave nothing
    (grad,) = torch.autograd.grad(feature_loss(embedding, found).sum(), embedding)
    assert torch.isfinite(grad).all() and grad.abs().max() > 0


# -- training --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return tiny_dataset(tmp_path_factory.mktemp("completeness") / "data", videos=6, classes=2, dim=8, seed=2)


def values(data: Dataset, config: TrainingConfig) -> tuple[dict[str, torch.Tensor], torch.Tensor, bool]:
    """Loss terms of all training videos, a number drawn after them, and whether the module still trains."""
    torch.manual_seed(0)
    task = SnippetTrain(config, 4).open(Context(data, {}, data.videos("train"), 0))
    batch = task.collate([task.item(i, np.random.default_rng(0)) for i in range(len(task))])
    return task.loss(task.module, batch, one_worker), torch.rand(()), task.module.training


def test_weight_zero_changes_nothing_and_a_weight_adds_its_term(data: Dataset) -> None:
    plain, drawn, _ = values(data, TrainingConfig())
    assert set(plain) == {"loss", "video", "point", "background"}
    score, same, training = values(data, TrainingConfig(score_weight=0.5))
    both, _, _ = values(data, TrainingConfig(score_weight=0.5, feature_weight=2.0))
    assert training
    assert same == drawn  # the search in eval mode draws nothing, so dropout goes on as it was
    for name in ("video", "point", "background"):
        assert torch.equal(score[name], plain[name]) and torch.equal(both[name], plain[name])
    torch.testing.assert_close(score["loss"], plain["loss"] + 0.5 * score["score"])
    torch.testing.assert_close(both["loss"], plain["loss"] + 0.5 * both["score"] + 2 * both["feature"])
    assert both["score"] > 0 and both["feature"] > 0


@pytest.mark.parametrize(
    "proposer",
    [
        SnippetProposer(training=TrainingConfig(epochs=4, lr=1e-2, score_weight=1.0, feature_weight=1.0)),
        HrproProposer(training=HrproTraining(epochs=2, heads=2, score_weight=1.0, feature_weight=1.0)),
    ],
    ids=lambda p: p.method,
)
def test_training_with_both_terms_is_deterministic(
    data: Dataset, proposer: SnippetProposer | HrproProposer, tmp_path: Path
) -> None:
    first, again = (proposer.train(TinyEngine(data, 0, tmp_path / name)).model()["state"] for name in ("a", "b"))
    assert all(torch.equal(first[k], again[k]) and torch.isfinite(first[k]).all() for k in first)


def test_training_makes_searched_segments_more_complete(data: Dataset, tmp_path: Path) -> None:
    """Mean contrast of what the search finds in the training videos, with and without the score term."""

    def completeness(weight: float) -> float:
        proposer = SnippetProposer(training=TrainingConfig(epochs=15, lr=1e-2, dropout=0.2, score_weight=weight))
        engine = TinyEngine(data, 0, tmp_path / str(weight))
        scores = proposer.score(engine, proposer.train(engine), "train")
        found = []
        for video in data.videos("train"):
            cas, background = (torch.from_numpy(np.array(scores.array(k, video))) for k in ("cas", "background"))
            points = data.points(video)
            labels = torch.zeros(cas.shape, dtype=torch.bool)
            labels[torch.from_numpy(data.grid(video, len(cas)).row(points.time)), torch.from_numpy(points.label)] = True
            mask = torch.ones(1, len(cas), dtype=torch.bool)
            segments = find_segments(cas[None], mine(background[None], labels[None], mask), mask, 25)
            found.append(score_loss(cas[None], mask, segments).item())
        return float(np.mean(found))

    assert completeness(1.0) < 0.9 * completeness(0.0)


def test_the_recipe_trains_both_terms() -> None:
    recipe = load_recipe("lacp")
    assert recipe.rounds == 0 and isinstance(recipe.proposer, SnippetProposer)
    training = recipe.proposer.training
    weights = {k: v for k, v in training.model_dump().items() if k.endswith("_weight")}
    assert weights == {
        "video_weight": 1.0,
        "point_weight": 0.5,
        "background_weight": 1.0,
        "score_weight": 1.0,
        "feature_weight": 1.0,
    }
    assert training.epochs * (200 // 16) == pytest.approx(2000, abs=12)
