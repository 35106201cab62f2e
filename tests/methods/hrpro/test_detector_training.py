"""Training of the detector `hrpro-instance`: losses by hand, workers, items, targets."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tad.errors import DataError
from tad.methods.hrpro.detector_model import framed
from tad.methods.hrpro.detector_training import ANY, InstanceTask, InstanceTraining, Item, Proposals, overlap, targets
from tad.ops.iou import tiou
from tad.stages import Context, one_worker
from tests.support.tiny import adopted


def task_of(context, **options):
    torch.manual_seed(0)
    return InstanceTask(InstanceTraining(dropout=0.0, **options), context)


def invented_item(rng, length=20, proposals=7, labels=3, dim=12):
    def spans(count):
        start = rng.uniform(0, length - 2, count)
        return np.stack([start, start + rng.uniform(1, 8, count)], axis=1)

    found = Proposals(spans(proposals), rng.integers(ANY, 2, proposals))
    wanted = Proposals(spans(labels), rng.integers(0, 2, labels))
    features = torch.from_numpy(rng.normal(size=(length, dim)).astype(np.float32))
    return Item(features, found, targets(found, wanted).astype(np.float32), wanted)


def invented_items(counts=((7, 3), (0, 2), (12, 1), (5, 6))):
    rng = np.random.default_rng(3)
    return [invented_item(rng, 15 + 4 * i, n, m) for i, (n, m) in enumerate(counts)]


def test_losses_by_hand(context):
    task = task_of(context, completeness_weight=0.7, regression_weight=1.9)
    items = invented_items()
    found = task.loss(task.module, task.collate(items), one_worker)
    score = regression = 0.0
    for item in items:
        if not len(item.target):
            continue
        spans = torch.from_numpy(item.proposals.spans)
        answer = task.module(*framed([item.features]), spans, torch.zeros(len(spans), dtype=torch.long))
        q, refined = answer.completeness.detach().numpy(), answer.refined.detach().numpy()
        score += np.mean((q - item.target) ** 2) / 2
        reached = []
        for span, label, target in zip(refined, item.proposals.classes, item.target, strict=True):
            mine = item.labels.spans[(item.labels.classes == label) | (label == ANY)]
            if target >= 0.3:
                reached.append(tiou(span[None], mine).max())
        regression += np.mean([(1 - x) ** 2 / 2 for x in reached]) if reached else 0.0
    assert found["score"].item() == pytest.approx(score / 4, rel=1e-5)
    assert found["regression"].item() == pytest.approx(regression / 4, rel=1e-5)
    assert found["loss"].item() == pytest.approx((0.7 * score + 1.9 * regression) / 4, rel=1e-5)


def gradients(task, items, total):
    task.module.zero_grad()
    values = task.loss(task.module, task.collate(items), total)
    values["loss"].backward()
    return [p.grad.clone() for p in task.module.parameters()], float(values["loss"].detach())


def test_the_loss_is_shared_between_workers(context):
    """Gradients of two workers with unequal shares add up to those of the whole batch."""
    task, items = task_of(context), invented_items()
    whole, value = gradients(task, items, one_worker)
    parts = [gradients(task, part, lambda x: torch.full_like(x, 4.0)) for part in (items[:1], items[1:])]
    assert sum(part[1] for part in parts) == pytest.approx(value, rel=1e-5)
    for all_of_it, one, other in zip(whole, parts[0][0], parts[1][0], strict=True):
        torch.testing.assert_close(one + other, all_of_it, atol=1e-7, rtol=1e-4)


def test_a_batch_without_any_proposal_has_no_gradient(context):
    task = task_of(context)
    grads, value = gradients(task, invented_items(((0, 2), (0, 1))), one_worker)
    assert value == 0 and all((g == 0).all() for g in grads)


def test_overlap_knows_classes_and_survives_inverted_segments():
    batch = {
        "label_spans": torch.tensor([[[0.0, 10.0], [20.0, 30.0]], [[4.0, 6.0], [0.0, 0.0]]]),
        "label_classes": torch.tensor([[0, 1], [1, ANY]]),
        "label_mask": torch.tensor([[True, True], [True, False]]),
    }
    spans = torch.tensor(
        [[5.0, 15.0], [5.0, 15.0], [5.0, 15.0], [9.0, 3.0], [7.0, 7.0], [0.0, 8.0], [-1.0, 1.0]], requires_grad=True
    )
    video, classes = torch.tensor([0, 0, 0, 0, 0, 1, 1]), torch.tensor([0, 1, ANY, 0, ANY, 1, ANY])
    found = overlap(spans, video, classes, batch)
    assert found.tolist() == pytest.approx([1 / 3, 0, 1 / 3, 0, 0, 1 / 4, 0])
    found.sum().backward()
    assert spans.grad.isfinite().all() and spans.grad[0].abs().min() > 0 and (spans.grad[3] == 0).all()


def test_targets_are_of_the_own_class_or_of_any():
    labels = Proposals(np.array([[0.0, 10.0], [10.0, 20.0]]), np.array([0, 1]))
    spans = np.array([[0.0, 10.0]] * 3 + [[5.0, 20.0]])
    found = targets(Proposals(spans, np.array([0, 1, ANY, ANY])), labels)
    np.testing.assert_allclose(found, [1, 0, 1, 2 / 3])


def test_items_hold_all_positives_and_about_as_many_others(context):
    task = task_of(context)
    for index, video in enumerate(task.videos):
        everything = targets(task.proposals[video], task.labels[video])
        positive = int((everything >= 0.3).sum())
        items = [task.item(index, np.random.default_rng(seed)) for seed in range(40)]
        others = [int((item.target < 0.3).sum()) for item in items]
        assert all(int((item.target >= 0.3).sum()) == positive for item in items)
        expected = min(positive, len(everything) - positive)
        assert np.mean(others) == pytest.approx(expected, abs=3 + 0.2 * expected)
        grid = context.data.grid(video)
        exact = targets(
            Proposals(grid.from_position(items[0].proposals.spans), items[0].proposals.classes), task.labels[video]
        )
        np.testing.assert_allclose(items[0].target, exact, atol=1e-5)


def test_items_depend_on_their_random_numbers_only_and_are_cut(context):
    task = task_of(context, max_proposals=6)
    one, same, other = (task.item(0, np.random.default_rng(seed)) for seed in (1, 1, 2))
    np.testing.assert_array_equal(one.proposals.spans, same.proposals.spans)
    assert one.proposals.spans.tolist() != other.proposals.spans.tolist()
    assert all(len(task.item(0, np.random.default_rng(seed)).target) <= 6 for seed in range(20))


def test_class_blind_targets_are_at_least_those_of_the_own_class(context):
    """The published target: a candidate of a wrong class may be complete."""
    own, blind = task_of(context), task_of(context, match_class=False)
    assert set(np.concatenate([p.classes for p in blind.proposals.values()])) == {ANY}
    for video in own.videos:
        mine = targets(own.proposals[video], own.labels[video])
        assert (targets(blind.proposals[video], blind.labels[video]) >= mine).all()


def test_videos_without_labels_are_left_out(context, engine):
    labels = context.inputs["labels"].segments()
    first = labels.filter(np.array(labels.video_ids) == context.videos[0])
    found = engine.adopt(first, "labels")
    task = task_of(Context(context.data, {**context.inputs, "labels": found}, context.videos, 0))
    assert task.videos == [context.videos[0]] and task.settings["skipped_videos"] == len(context.videos) - 1
    foreign = adopted(engine, [("elsewhere", 0, 1, context.data.classes[0], 1)])
    with pytest.raises(DataError, match="both a pseudo-label and a candidate"):
        task_of(Context(context.data, {**context.inputs, "labels": foreign}, context.videos, 0))
    unknown = adopted(engine, [(context.videos[0], 0, 1, "Flying", 1)])
    with pytest.raises(DataError, match=r"labels of classes that .* does not have: Flying"):
        task_of(Context(context.data, {**context.inputs, "labels": unknown}, context.videos, 0))
