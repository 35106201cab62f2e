"""LACP's completeness learning: segments of a batch, the losses by hand, and both in training."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from tad.data.dataset import Dataset
from tad.methods.hrpro.proposer import HrproProposer, HrproTraining
from tad.methods.snippet.completeness import Found, feature_loss, find_segments, score_loss
from tad.methods.snippet.mining import Mined, mine
from tad.methods.snippet.proposer import SnippetProposer
from tad.methods.snippet.training import SnippetTrain, TrainingConfig
from tad.recipe.recipe import load_recipe
from tad.stages import Context, one_worker
from tests.support.rounds import round_of
from tests.support.tiny import TinyEngine, tiny_dataset

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
    task = SnippetTrain(config).open(Context(data, {}, data.videos("train"), 0))
    batch = task.collate([task.item(i, np.random.default_rng(0)) for i in range(len(task))])
    return task.loss(task.module, batch, one_worker), torch.rand(()), task.module.training


def test_weight_zero_changes_nothing_and_a_weight_adds_its_term(data: Dataset) -> None:
    plain, drawn, _ = values(data, TrainingConfig())
    assert set(plain) == {"loss", "video", "point", "background"}
    score, same, training = values(data, TrainingConfig(score_contrast_weight=0.5))
    both, _, _ = values(data, TrainingConfig(score_contrast_weight=0.5, feature_contrast_weight=2.0))
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
        SnippetProposer(
            training=TrainingConfig(epochs=4, lr=1e-2, score_contrast_weight=1.0, feature_contrast_weight=1.0)
        ),
        HrproProposer(
            training=HrproTraining(epochs=2, heads=2, score_contrast_weight=1.0, feature_contrast_weight=1.0)
        ),
    ],
    ids=lambda p: p.method,
)
def test_training_with_both_terms_is_deterministic(
    data: Dataset, proposer: SnippetProposer | HrproProposer, tmp_path: Path
) -> None:
    first, again = (
        proposer.train(round_of(TinyEngine(data, 0, tmp_path / name))).model()["state"] for name in ("a", "b")
    )
    assert all(torch.equal(first[k], again[k]) and torch.isfinite(first[k]).all() for k in first)


def test_training_makes_searched_segments_more_complete(data: Dataset, tmp_path: Path) -> None:
    """Mean contrast of what the search finds in the training videos, with and without the score term."""

    def completeness(weight: float) -> float:
        proposer = SnippetProposer(
            training=TrainingConfig(epochs=15, lr=1e-2, dropout=0.2, score_contrast_weight=weight)
        )
        engine = TinyEngine(data, 0, tmp_path / str(weight))
        scores = proposer.score(round_of(engine), proposer.train(round_of(engine)))
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
        "score_contrast_weight": 1.0,
        "feature_contrast_weight": 1.0,
    }
    assert training.epochs * (200 // 16) == pytest.approx(2000, abs=12)
