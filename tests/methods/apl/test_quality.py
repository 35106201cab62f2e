"""Quality branches: measured quality, joint score, its focal loss, and what they change in ActionFormer."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tad.data.dataset import Dataset
from tad.data.segments import Segments
from tad.methods.apl.actionformer import AplActionFormerDetector, AplDecoding, AplDetector
from tad.methods.apl.actionformer_model import AplActionFormer, AplOutputs
from tad.methods.apl.quality import (
    LEAST_QUALITY,
    Quality,
    branch_losses,
    joint_quality,
    measured_quality,
    quality_losses,
)
from tad.ops.losses import diou_1d, joint_focal
from tad.stages import Artifact, Context, one_worker
from tests.support.apl import task
from tests.support.plain import SMALL, as_artifact, batch_of
from tests.support.rounds import round_of, taught
from tests.support.tiny import TinyEngine

SIDES = st.lists(st.floats(0, 50, width=32), min_size=2, max_size=2)


# -- equations -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("predicted", "true", "tiou", "distance", "loss"),
    [((2, 2), (4, 4), 0.5, 0.0, 0.5), ((0, 4), (4, 0), 0.0, 0.5, 1.25), ((4, 4), (4, 4), 1.0, 0.0, 0.0)],
)
def test_quality_by_hand(predicted, true, tiou, distance, loss):
    pair = torch.tensor([predicted], dtype=torch.float32), torch.tensor([true], dtype=torch.float32)
    assert measured_quality(*pair).tolist() == [[tiou, distance**2]]
    assert measured_quality(*pair, power=1).tolist() == [[tiou, distance]]
    assert diou_1d(*pair).tolist() == [loss]


@given(SIDES, SIDES)
def test_the_distance_is_bounded_by_the_overlap(predicted, true):
    tiou, distance = measured_quality(torch.tensor([predicted]), torch.tensor([true]))[0].tolist()
    assert 0 <= tiou <= 1 + 1e-6
    assert 0 <= distance <= ((1 - tiou) / 2) ** 2 + 1e-6 or sum(predicted) + sum(true) < 1e-6


def test_the_joint_factor_is_the_difference_and_never_zero():
    logits = torch.tensor([[2.0, -3.0], [0.0, -3.0], [-2.0, 2.0], [-80.0, 80.0]], requires_grad=True)
    factor = joint_quality(logits)
    expected = [1 / (1 + math.exp(-a)) - 1 / (1 + math.exp(-b)) for a, b in ((2, -3), (0, -3))]
    assert factor[:2].tolist() == pytest.approx(expected)
    assert factor[2:].tolist() == pytest.approx([LEAST_QUALITY] * 2)
    factor.sum().backward()
    assert (logits.grad[:2] != 0).all() and (logits.grad[2:] == 0).all()


@given(st.floats(0.05, 0.95), st.floats(0.05, 0.9))
def test_the_class_loss_is_least_at_the_soft_target(target, part):
    """With P = quality * probability: no slope at P = Y, neither for the logit nor for the quality."""
    quality = torch.tensor([target + (1 - target) * part], dtype=torch.float64, requires_grad=True)
    logit = torch.logit(target / quality.detach())[:, None].requires_grad_()
    y = torch.tensor([[target]], dtype=torch.float64)
    joint_focal(logit, quality, y).sum().backward()
    assert abs(float(logit.grad)) < 1e-9 and abs(float(quality.grad)) < 1e-9
    at = [float(joint_focal(logit.detach() + d, quality.detach(), y)) for d in (-0.5, 0.0, 0.5)]
    assert at[1] < min(at[0], at[2])


def test_the_class_loss_of_negatives_weighs_by_the_squared_score():
    logits, quality = torch.tensor([[0.3, -2.0]]), torch.tensor([0.6])
    p = torch.sigmoid(logits) * 0.6
    expected = 0.75 * p**2 * -torch.log(1 - p)
    torch.testing.assert_close(joint_focal(logits, quality, torch.zeros(1, 2)), expected)
    plain = joint_focal(logits, torch.ones(1), torch.tensor([[1.0, 0.0]]), gamma=0.0, negative_weight=1.0)
    cross = torch.nn.functional.binary_cross_entropy_with_logits(logits, torch.tensor([[1.0, 0.0]]), reduction="none")
    torch.testing.assert_close(plain, cross)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0, 2.0])
def test_the_class_loss_is_finite_at_extremes(gamma):
    logits = torch.tensor([-80.0, 0.0, 80.0]).repeat(6)[:, None].requires_grad_()
    quality = torch.tensor([LEAST_QUALITY, 0.5, 1.0]).repeat_interleave(6).requires_grad_()
    targets = torch.tensor([0.0, 0.0, 0.0, LEAST_QUALITY, 0.5, 1.0]).repeat(3)[:, None]
    loss = joint_focal(logits, quality, targets, gamma)
    loss.sum().backward()
    assert torch.isfinite(loss).all() and torch.isfinite(logits.grad).all() and torch.isfinite(quality.grad).all()


def test_a_class_learns_where_the_quality_is_as_low_as_can_be():
    logit = torch.tensor([[0.5]], requires_grad=True)
    joint_focal(logit, torch.tensor([LEAST_QUALITY]), torch.tensor([[1.0]]), gamma=0.0).sum().backward()
    assert float(logit.grad) == pytest.approx(-(1 - 1 / (1 + math.exp(-0.5))), rel=1e-3)  # -d ln P / dz


def outputs(quality: list[list[float]]) -> AplOutputs:
    """Three points: (2, 2), (0, 4) and (1, 1) predicted."""
    offsets = torch.tensor([[2.0, 2.0], [0.0, 4.0], [1.0, 1.0]], requires_grad=True)
    return AplOutputs(
        torch.tensor([[0.2, -1.0]] * 3, requires_grad=True),
        offsets,
        torch.ones(3, dtype=torch.bool),
        torch.tensor(quality, requires_grad=True),
        None,
    )


def test_both_losses_of_points_by_hand():
    out = outputs([[1.0, -2.0], [0.5, -1.0], [0.0, 0.0]])
    classes = torch.tensor([[True, True], [False, True], [False, False]])
    offsets = torch.tensor([[4.0, 4.0], [4.0, 0.0], [0.0, 0.0]])
    positive = classes.any(1)
    focal, branches = quality_losses(out, classes, offsets, positive, Quality(enabled=True))
    p, y = torch.sigmoid(out.quality[:2].detach()), torch.tensor([[0.5, 0.0], [0.0, 0.25]])
    torch.testing.assert_close(branches.detach(), -(y * p.log() + (1 - y) * (1 - p).log()).sum(1))
    soft = torch.tensor([[0.5, 0.5], [0.0, LEAST_QUALITY], [0.0, 0.0]])
    torch.testing.assert_close(focal, joint_focal(out.logits, joint_quality(out.quality), soft))

    # What is measured, and what the branches say as a target, carry no gradient to the boundaries.
    for source in ("measured", "branch"):
        config = Quality(enabled=True, soft_target=source, tnd_power=1)
        focal, branches = quality_losses(out, classes, offsets, positive, config)
        (focal.sum() + branches.sum()).backward()
        assert out.offsets.grad is None
        assert (out.quality.grad[:2] != 0).all()
    factor = joint_quality(out.quality)
    soft = torch.tensor([[1.0, 1.0], [0.0, 1.0], [0.0, 0.0]]) * factor[:, None].detach()
    torch.testing.assert_close(focal, joint_focal(out.logits, factor, soft))


@pytest.mark.parametrize("branches", ["tiou", "diou"])
def test_one_branch_predicts_the_overlap_or_the_difference(branches: str):
    """The rows of the paper's Table 4."""
    out = outputs([[1.0], [0.5], [0.0]])
    classes = torch.tensor([[True, True], [False, True], [False, False]])
    offsets = torch.tensor([[4.0, 4.0], [4.0, 0.0], [0.0, 0.0]])
    config = Quality(enabled=True, branches=branches)
    focal, losses = quality_losses(out, classes, offsets, classes.any(1), config)
    # Measured: tIoU .5 and 0, distances 0 and .25, so the second difference is cut to 0.
    y, p = torch.tensor([0.5, 0.0]), torch.sigmoid(out.quality[:2, 0].detach())
    torch.testing.assert_close(losses.detach(), -(y * p.log() + (1 - y) * (1 - p).log()))
    soft = torch.tensor([[0.5, 0.5], [0.0, LEAST_QUALITY], [0.0, 0.0]])
    torch.testing.assert_close(focal, joint_focal(out.logits, torch.sigmoid(out.quality[:, 0]), soft))


def test_the_divergence_is_least_at_what_was_measured_and_pulls_otherwise_than_the_entropy():
    measured = torch.tensor([[0.5, 0.1], [0.0, 1.0]])
    exact = torch.logit(measured, eps=LEAST_QUALITY).requires_grad_()
    loss = branch_losses(exact, measured, "kl")
    loss.sum().backward()
    assert loss.abs().max() < 1e-5 and exact.grad.abs().max() < 1e-5
    logits = torch.tensor([[2.0, -1.0]], requires_grad=True)
    p, y = torch.sigmoid(logits.detach()), measured[:1]
    by_hand = p * (p / y).log() + (1 - p) * ((1 - p) / (1 - y)).log()
    found = branch_losses(logits, y, "kl")
    torch.testing.assert_close(found.detach(), by_hand.sum(1))
    slopes = [torch.autograd.grad(branch_losses(logits, y, kind).sum(), logits)[0] for kind in ("bce", "kl")]
    assert not torch.allclose(*slopes) and (slopes[0] * slopes[1] > 0).all()
    wild = torch.tensor([[80.0, -80.0]], requires_grad=True)
    branch_losses(wild, torch.tensor([[0.0, 1.0]]), "kl").sum().backward()
    assert torch.isfinite(wild.grad).all()


@pytest.mark.parametrize("quality", [{"branches": "tiou"}, {"branches": "diou", "loss": "kl"}])
def test_variants_train_and_their_model_is_read_again(
    quality: dict[str, object], plain: tuple[Dataset, Segments], tmp_path: Path
):
    data, labels = plain
    detector = AplActionFormerDetector(training={**SMALL, "epochs": 1, "quality": {"enabled": True, **quality}})
    now = round_of(TinyEngine(data, seed=0, folder=tmp_path / "engine"))
    model = detector.train(now, taught(as_artifact(labels, tmp_path / "labels")))
    assert model.model()["state"]["quality_head.bias"].shape == (1,)
    assert detector.detect(now, model).segments() is not None


# -- the network and its training ------------------------------------------------------------------------------------


def test_published_size():
    count = sum(p.numel() for p in AplActionFormer(branches=2, dim=2048, classes=20).parameters())
    assert count == 29_251_612 + 3074


def test_branches_add_to_the_network_and_change_nothing_in_it():
    states, said = [], []
    for branches in (0, 2):
        torch.manual_seed(3)
        network = AplActionFormer(branches, dim=5, classes=4, width=16, heads=2, levels=3, window=5).eval()
        states.append(network.state_dict())
        torch.manual_seed(4)
        said.append(network(torch.randn(12, 5), torch.zeros(12, dtype=torch.int64)))
    assert states[1].keys() - states[0].keys() == {"quality_head.weight", "quality_head.bias"}
    assert all(torch.equal(value, states[1][key]) for key, value in states[0].items())
    assert said[0].quality is None and said[1].quality.shape == (21, 2)
    assert torch.equal(said[0].logits, said[1].logits) and torch.equal(said[0].offsets, said[1].offsets)
    assert (joint_quality(said[1].quality) > 0.2).all()  # it starts near 0.45


def test_the_options_off_leave_no_trace(plain: tuple[Dataset, Segments], tmp_path: Path):
    opened = task(*plain, tmp_path)
    assert not {"quality", "labelled", "unlabelled"} & opened.settings.keys()
    assert not [key for key in opened.module.state_dict() if "quality" in key or "unlabelled" in key]
    assert batch_of(opened, [0, 1]).keys() == {
        "features",
        "video",
        "lengths",
        "positive",
        "classes",
        "offsets",
        "weights",
    }


def test_the_loss_of_a_batch_is_that_of_its_points(plain: tuple[Dataset, Segments], tmp_path: Path):
    opened = task(*plain, tmp_path, quality={"enabled": True, "weight": 0.3})
    batch = batch_of(opened, [0, 1, 2])
    values = opened.loss(opened.module, batch, one_worker)
    values["loss"].backward()
    assert opened.module.quality_head.weight.grad.abs().sum() > 0
    with torch.no_grad():
        out = opened.module(batch["features"], batch["video"], batch["lengths"])
    positive = (batch["classes"].any(1) & out.mask).nonzero()[:, 0]
    assert torch.equal(positive, batch["positive"])
    focal, branches = quality_losses(out, batch["classes"], batch["offsets"], positive, opened.config.quality)
    number = opened.module.normaliser
    assert float(number) == pytest.approx(90 + 0.1 * float(values["positives"]))
    assert float(values["quality"].detach()) == pytest.approx(float(branches.sum() / number), rel=1e-5)
    assert float(values["classification"].detach()) == pytest.approx(float(focal[out.mask].sum() / number), rel=1e-5)
    parts = [float(values[k].detach()) for k in ("classification", "regression", "quality")]
    assert float(values["loss"].detach()) == pytest.approx(parts[0] + parts[1] + 0.3 * parts[2], rel=1e-5)


# -- scores ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("power", [0.0, 0.5, 1.0])
def test_detections_are_ranked_by_the_joint_score(power: float, plain: tuple[Dataset, Segments], tmp_path: Path):
    data, labels = plain
    opened = task(data, labels, tmp_path, quality={"enabled": True})
    with torch.no_grad():
        opened.module.offset_head.bias.fill_(2.0)
        opened.module.quality_head.weight.normal_()
    (tmp_path / "model").mkdir()
    torch.save({"state": opened.module.state_dict(), "settings": opened.settings}, tmp_path / "model" / "model.pt")
    limits = AplDecoding(min_score=0.0, quality_power=power, top_k=10**6)
    detector = AplDetector.open(limits, Context(data, {"model": Artifact("m", tmp_path / "model")}, [], 0))
    features = np.array(data.features("v0"), dtype=np.float32)
    with torch.inference_mode():
        out = opened.module.eval()(*detector.rows(features))
    expected = out.logits.sigmoid() * joint_quality(out.quality)[:, None] ** power * out.mask[:, None]
    np.testing.assert_allclose(detector.answers(features).scores, expected.numpy(), rtol=1e-5)
    _, scores, _ = detector.candidates(features)
    assert len(scores) == (expected > 0).sum()


def test_it_learns_what_is_plain_and_knows_how_well(plain: tuple[Dataset, Segments], tmp_path: Path):
    torch.set_num_threads(1)
    data, labels = plain
    detector = AplActionFormerDetector(
        training={**SMALL, "epochs": 16, "batch_size": 2, "lr": 5e-3, "quality": {"enabled": True}}
    )
    engine = TinyEngine(data, seed=0, folder=tmp_path / "engine")
    model = detector.train(round_of(engine), taught(as_artifact(labels, tmp_path / "labels")))
    saved = model.model()
    assert saved["settings"]["quality"] is True
    fresh = task(data, labels, tmp_path, quality={"enabled": True}).module.state_dict()
    assert not torch.equal(saved["state"]["quality_head.weight"], fresh["quality_head.weight"])  # averaged, too

    opened = task(data, labels, tmp_path, quality={"enabled": True})
    opened.module.load_state_dict(saved["state"])
    batch = batch_of(opened, [0, 1, 2, 3, 4, 5])
    with torch.inference_mode():
        out = opened.module.eval()(batch["features"], batch["video"])
    positive = batch["classes"].any(1) & out.mask
    true = measured_quality(out.offsets[positive], batch["offsets"][positive])
    said = torch.sigmoid(out.quality[positive])
    assert (said[:, 0] - true[:, 0]).abs().mean() < 0.2 and (said[:, 1] - true[:, 1]).abs().mean() < 0.05
    background = out.mask & ~batch["classes"].any(1)
    joint = out.logits.sigmoid().amax(1) * joint_quality(out.quality)
    assert joint[positive].mean() > 4 * joint[background].mean()
