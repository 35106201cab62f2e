"""PseR's heads: pooling, independence of batching and order, two workers, the losses of a batch."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tad.methods.common.seeds import Proposals, SeedRule
from tad.methods.pser.heads import BagConfig, FitConfig, HeadsConfig, NegativesConfig
from tad.methods.pser.labeler import HeadsFit, PserLabeler
from tad.methods.pser.model import PserHeads
from tad.ops.losses import mil_bag_probability, mil_loss, negative_loss
from tad.ops.roi import roi_align
from tad.stages import Context, one_worker
from tests.support.tiny import TinyEngine, adopted, tiny_dataset

LAYOUTS = [{}, {"project": 4, "context": 0.5, "bag_mean": "subtract", "bins": 5}, {"centred": False, "hidden": 7}]


def heads(classes=3, dim=6, seed=0, **more):
    torch.manual_seed(seed)
    return PserHeads(dim, classes, **({"hidden": 16} | more)).eval()


def batch(lengths=(30, 11, 47), groups=(2, 1, 3), members=5, negatives=(4, 0, 2), dim=6, seed=0):
    """Features, lengths, bags, bag_video, negatives, negative_video; padding is filled with rubbish."""
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(len(lengths), max(lengths), dim)).astype(np.float32)

    def spans(counts, shape):
        video = np.repeat(np.arange(len(lengths)), counts)
        start = rng.uniform(-3, np.array(lengths)[video].reshape(-1, *[1] * len(shape)), (len(video), *shape))
        return np.stack([start, start + rng.exponential(5, start.shape)], -1), video

    bags, bag_video = spans(groups, (members,))
    negative, negative_video = spans(negatives, ())
    return [torch.from_numpy(np.asarray(x)) for x in (features, lengths, bags, bag_video, negative, negative_video)]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_videos_in_a_batch_do_not_see_each_other_or_padding(layout):
    model, inputs = heads(**layout), batch()
    features, lengths, bags, bag_video, negatives, negative_video = inputs
    together = model(*inputs)
    rubbish = features.clone()
    for video, length in enumerate(lengths):
        rubbish[video, length:] = 1e6
    for one, other in zip(together, model(rubbish, *inputs[1:]), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-5)
    for video, length in enumerate(lengths):
        mine, also = bag_video == video, negative_video == video
        alone = model(
            features[video : video + 1, :length],
            lengths[video : video + 1],
            bags[mine],
            torch.zeros_like(bag_video[mine]),
            negatives[also],
            torch.zeros_like(negative_video[also]),
        )
        for name in ("cls", "ins", "rank"):
            torch.testing.assert_close(getattr(alone, name), getattr(together, name)[mine], rtol=0, atol=1e-5)
        torch.testing.assert_close(alone.negative, together.negative[also], rtol=0, atol=1e-5)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_order_of_bags_and_members_does_not_matter(layout):
    model, (features, lengths, bags, bag_video, *rest) = heads(**layout), batch()
    scores = model(features, lengths, bags, bag_video, *rest)
    turn, shuffle = torch.tensor([3, 0, 5, 1, 4, 2]), torch.tensor([4, 2, 0, 1, 3])
    turned = model(features, lengths, bags[turn][:, shuffle], bag_video[turn], *rest)
    for name in ("cls", "ins", "rank"):
        torch.testing.assert_close(getattr(turned, name), getattr(scores, name)[turn][:, shuffle], rtol=0, atol=1e-5)


@pytest.mark.parametrize(("classes", "members", "dim"), [(1, 1, 3), (34, 4, 6), (20, 60, 6)])
def test_any_number_of_classes_members_and_channels(classes, members, dim):
    scores = heads(classes, dim)(*batch(members=members, dim=dim))
    assert scores.cls.shape == scores.ins.shape == (6, members, classes)
    assert scores.rank.shape == (6, members) and scores.negative.shape == (6, classes)
    assert ((scores.rank > 0) & (scores.rank < 1)).all()
    assert all(torch.isfinite(x).all() for x in scores)


def test_the_published_layout():
    """Two separate 8 * D -> 1024 -> 1024 modules; 17.87 and 17.83 million weights for 2048 channels, 20 classes."""
    model = PserHeads(2048, 20)
    size = {name: sum(p.numel() for p in part.parameters()) for name, part in model.named_children()}
    assert (size["selection"] + size["cls"] + size["ins"]) / 1e6 == pytest.approx(17.87, abs=0.01)
    assert (size["ranking"] + size["rank"]) / 1e6 == pytest.approx(17.83, abs=0.01)
    assert model.project is None and model.bins == 8


def test_published_pooling_is_plain_roi_align():
    features, lengths, bags, bag_video, *_ = batch()
    rois, video = bags.reshape(-1, 2), bag_video.repeat_interleave(5)
    found = heads(centred=False).pool(features, lengths, rois, video)
    torch.testing.assert_close(found, roi_align(features, rois, 8, video, lengths))


def test_short_segments_grow_about_their_centre():
    ramp = torch.arange(20.0)[:, None]
    short = torch.tensor([[7.0, 7.4]], dtype=torch.float64)
    zero = torch.zeros(1, dtype=torch.long)
    lengths = torch.tensor([20])
    mean = [
        float(heads(dim=1, centred=centred).pool(ramp[None], lengths, short, zero).mean()) for centred in (True, False)
    ]
    assert mean == pytest.approx([7.2, 7.5], abs=1e-5)


def test_context_widens_both_sides_by_a_share_of_the_length():
    features, lengths = batch()[:2]
    rois = torch.tensor([[10.0, 14.0]], dtype=torch.float64)
    zero = torch.zeros(1, dtype=torch.long)
    found = heads(context=0.5).pool(features, lengths, rois, zero)
    wide = torch.tensor([[8.0, 16.0]], dtype=torch.float64)
    torch.testing.assert_close(found, roi_align(features, wide, 8, zero, lengths))


def test_projecting_before_pooling_equals_projecting_after():
    model, (features, lengths, bags, bag_video, *_) = heads(project=4, centred=False), batch()
    rois, video = bags.reshape(-1, 2), bag_video.repeat_interleave(5)
    after = model.project(roi_align(features, rois, 8, video, lengths).transpose(1, 2)).transpose(1, 2)
    torch.testing.assert_close(model.pool(features, lengths, rois, video), after, rtol=1e-4, atol=1e-5)


def test_bag_mean_is_added_or_subtracted():
    added, inputs = heads(bag_mean="add"), batch(members=1)
    subtracted = heads(bag_mean="subtract")
    constant = torch.sigmoid(subtracted.rank.bias).expand(6, 1)
    torch.testing.assert_close(subtracted(*inputs).rank, constant, msg="a bag of one differs from its mean by nothing")
    assert added(*inputs).rank.std() > 0


# -- the task ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return tiny_dataset(tmp_path_factory.mktemp("heads") / "data", videos=5, classes=3, dim=8)


@pytest.fixture
def context(data, tmp_path):
    rows = [
        (v, max(0.0, t - 1.5), t + 1.0, data.classes[c], 0.5)
        for v in data.videos("train")
        for t, c in zip(*data.points(v), strict=True)
    ]
    artifact = adopted(TinyEngine(data, 0, tmp_path), rows)
    return Context(data, {"proposals": artifact}, data.videos("train"), 0)


def task_of(context, **groups):
    config = FitConfig(
        seed_rule=groups.get("seed_rule", SeedRule()),
        bag=groups.get("bag", BagConfig()),
        negatives=groups.get("negatives", NegativesConfig(count=40)),
        heads=groups.get("heads", HeadsConfig(hidden=16, project=4, dropout=0.0)),
    )
    torch.manual_seed(0)
    return HeadsFit(config).open(context)


def published_task(context):
    labeler = PserLabeler(faithful=True, heads={"hidden": 16})
    groups = {name: getattr(labeler, name) for name in ("seed_rule", "bag", "negatives", "heads")}
    return task_of(context, **groups)


def test_items_cover_every_bag_once(context, data):
    task = task_of(context, heads=HeadsConfig(bags_per_item=2, hidden=4))
    rng = np.random.default_rng(0)
    items = [task.item(i, rng) for i in range(len(task))]
    assert max(len(item.labels) for item in items) <= 2
    for video in context.videos:
        mine = [item.labels for item, (v, _) in zip(items, task.items, strict=True) if v == video]
        assert sorted(np.concatenate(mine)) == sorted(data.points(video).label)
    assert len(published_task(context)) == len(context.videos)


def test_an_item_depends_on_its_rng_alone(context):
    task = task_of(context)
    first, second, other = (task.item(1, np.random.default_rng(seed)) for seed in (3, 3, 4))
    for a, b in zip(first, second, strict=True):
        np.testing.assert_array_equal(a, b)
    assert not np.array_equal(first.negatives, other.negatives)
    np.testing.assert_array_equal(first.bags, other.bags)


def test_published_item(context, data):
    """500 negatives from all of u1 and then all of u2, mean over 500; edges, not positions; nothing cut."""
    task, video = published_task(context), context.videos[0]
    item = task.item(0, np.random.default_rng(5))
    grid = data.grid(video)
    _, seeds = Proposals(context).seeds(video, task.config.seed_rule)
    members = np.array(PserLabeler(faithful=True).bag.scales)
    np.testing.assert_allclose(item.bags[:, 9], grid.to_edge(seeds.spans))
    middle = item.bags.mean(-1)[:, 0]
    np.testing.assert_allclose(middle, grid.to_edge(seeds.spans).mean(1))
    np.testing.assert_allclose(np.diff(item.bags)[:, ::3, 0], np.diff(grid.to_edge(seeds.spans)) * members, rtol=1e-9)
    rng = np.random.default_rng(5)
    u1, u2 = rng.random(500), rng.random(500)
    start = -0.2 * grid.length + 1.2 * grid.length * u1
    drawn = np.stack([start, start + u2 * (1.2 * grid.length - start)], 1)
    kept = {tuple(np.round(row, 6)) for row in item.negatives}
    assert kept <= {tuple(np.round(row, 6)) for row in drawn} and 0 < len(kept) < 500
    np.testing.assert_allclose(item.negative_weight, 1 / 500)
    assert item.negative_count == 1 and item.bag_weight.sum() == pytest.approx(1)


def test_default_item_reads_half_a_snippet_earlier(context, data):
    task = task_of(context, seed_rule=SeedRule())
    video, part = task.items[0]
    _, seeds = Proposals(context).seeds(video, SeedRule())
    bags = task.item(0, np.random.default_rng(0)).bags
    grid = data.grid(video)
    expected = task.reader.bags(seeds.spans)[part]
    np.testing.assert_allclose(bags, grid.to_edge(expected) - 0.5)


def batch_of(task, indices, seed=0):
    return task.collate([task.item(i, np.random.default_rng([seed, i])) for i in indices])


def test_loss_of_the_published_batch_is_the_published_sum(context):
    """Each video: mean over its bags (selection, ranking) and over all 500 drawn (negatives); then over videos."""
    task = published_task(context)
    expected = []
    for index in range(3):
        item = task.item(index, np.random.default_rng([0, index]))
        scores = task.module(
            *(
                batch_of(task, [index])[k]
                for k in ("features", "lengths", "bags", "bag_video", "negatives", "negative_video")
            )
        )
        onehot = torch.eye(3)[torch.from_numpy(item.labels)]
        rank = 0.5 * (scores.rank - task.target) ** 2  # smooth L1 with beta 1 of differences below 1
        expected.append(
            mil_loss(mil_bag_probability(scores.cls, scores.ins), onehot).mean()
            + rank.mean()
            + 0.5 * negative_loss(scores.negative).sum() / 500
        )
    found = task.loss(task.module, batch_of(task, range(3)), one_worker)
    assert found["loss"].item() == pytest.approx(sum(expected).item() / 3, rel=1e-5)


@pytest.mark.parametrize("published", [False, True])
def test_two_workers_sum_to_the_whole_batch(context, published):
    task = published_task(context) if published else task_of(context)
    indices = list(range(4))
    whole = task.loss(task.module, batch_of(task, indices), one_worker)
    whole["loss"].backward()
    gradient = [p.grad.clone() for p in task.module.parameters()]
    task.module.zero_grad()

    halves = [batch_of(task, indices[:1]), batch_of(task, indices[1:])]
    sums: list[torch.Tensor] = []
    for half in halves:  # what every worker contributes to each `total`, in order
        mine: list[torch.Tensor] = []
        task.loss(task.module, half, lambda x, mine=mine: (mine.append(x.detach()), x)[1])
        sums = mine if not sums else [a + b for a, b in zip(sums, mine, strict=True)]
    parts = []
    for half in halves:
        answers = iter(sums)
        part = task.loss(task.module, half, lambda x, answers=answers: next(answers))
        part["loss"].backward()
        parts.append(part)
    for name, value in whole.items():
        assert (parts[0][name] + parts[1][name]).item() == pytest.approx(value.item(), rel=1e-5), name
    for expected, parameter in zip(gradient, task.module.parameters(), strict=True):
        torch.testing.assert_close(parameter.grad, expected, rtol=1e-4, atol=1e-6)


def test_negatives_are_averaged_over_the_valid_ones(context):
    task = task_of(context, negatives=NegativesConfig(count=40))
    batch = batch_of(task, [0, 1])
    assert batch["negative_count"].sum() == len(batch["negatives"]) > 0
    found = task.loss(task.module, batch, one_worker)
    scores = task.module(
        *(batch[k] for k in ("features", "lengths", "bags", "bag_video", "negatives", "negative_video"))
    )
    assert float(found["negative"].detach()) == pytest.approx(negative_loss(scores.negative).mean().item(), rel=1e-5)


def test_no_negatives_at_all(context):
    task = task_of(context, negatives=NegativesConfig(count=0))
    found = task.loss(task.module, batch_of(task, [0, 1]), one_worker)
    found["loss"].backward()
    assert float(found["negative"].detach()) == 0 and torch.isfinite(found["loss"])


def test_optimiser_schedules(context):
    task = published_task(context)
    optimiser, scheduler = task.optimiser(task.module, 100)
    assert scheduler is None and type(optimiser) is torch.optim.Adam
    assert optimiser.defaults["lr"] == 1e-4 and optimiser.defaults["weight_decay"] == 5e-4
    task = task_of(context)
    optimiser, scheduler = task.optimiser(task.module, 100)
    rates = []
    for _ in range(100):
        rates.append(optimiser.param_groups[0]["lr"])
        optimiser.step()
        scheduler.step()
    assert (
        max(rates) == pytest.approx(task.config.heads.lr) and rates[0] < max(rates) / 5 and rates[-1] < max(rates) / 100
    )


def test_snapshot_averaging_sets_the_loops_running_average(context):
    assert published_task(context).budget.ema_decay is None
    task = task_of(context, heads=HeadsConfig(snapshot_epochs=2, epochs=20, batch_size=1, hidden=4))
    assert task.budget.ema_decay == pytest.approx(1 - 1 / (2 * len(task)))
    short = task_of(context, heads=HeadsConfig(snapshot_epochs=2, epochs=4, batch_size=1, hidden=4))
    assert short.budget.ema_decay == pytest.approx(1 - 1 / len(short)), "no longer than a quarter of the training"


def test_the_budget_follows_the_number_of_items():
    assert HeadsConfig().budget([16] * 270) == (13, 8)
    assert HeadsConfig().budget([16] * 24) == (50, 3)
    assert HeadsConfig().budget([1]) == (60, 1)
    assert HeadsConfig().budget([160] * 2000) == (12, 8)
    assert HeadsConfig(epochs=5, batch_size=2).budget([16] * 270) == (5, 2)
    assert PserLabeler(faithful=True).heads.budget([200] * 200) == (133, 16)
