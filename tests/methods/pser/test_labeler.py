"""The labeler `pser`: merge (golden values and properties), repairs, options, and the whole of it on tiny data."""

from __future__ import annotations

import ast
import inspect

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

import tad.methods.common.seeds
import tad.methods.pser.heads
import tad.methods.pser.labeler
import tad.methods.pser.merge
import tad.methods.pser.model
from tad.data.segments import Segments
from tad.errors import DataError, RunError
from tad.methods.pser.bags import perturb, seed_tious
from tad.methods.pser.labeler import HeadsFit, PserLabeler, Refine
from tad.methods.pser.merge import MergeConfig, member_weights, merge, repair
from tad.ops.iou import paired_tiou
from tad.ops.losses import mil_bag_probability, mil_loss
from tad.options import Unsaid, declared
from tests.support.rounds import round_of
from tests.support.tiny import TinyEngine, adopted, tiny_dataset

PUBLISHED = PserLabeler(faithful=True)
SCALES, SHIFTS, PUBLISHED_MERGE = PUBLISHED.bag.scales, PUBLISHED.bag.shifts, PUBLISHED.merge


def golden_logits():
    n, c = np.arange(21)[:, None], np.arange(3)[None]
    return np.sin(0.7 * n + 1.3 * c), np.cos(0.4 * n - 0.9 * c)


# -- merge -------------------------------------------------------------------------------------------------------


def test_golden_selection_probability_and_loss(golden):
    cls, ins = (torch.from_numpy(x)[None] for x in golden_logits())
    probability = mil_bag_probability(cls, ins)
    np.testing.assert_allclose(probability[0].numpy(), golden("pser")["mil"]["bag_prob"], atol=1e-7)
    loss = mil_loss(probability, torch.eye(3, dtype=torch.float64)[[1]])
    assert float(loss) == pytest.approx(golden("pser")["mil"]["loss"], abs=1e-7)


def test_golden_merge(golden):
    expected = golden("pser")["merge"]
    cls, ins = (x[None, :, expected["label"]] for x in golden_logits())
    rank = seed_tious(SCALES, SHIFTS)[None]
    weights = member_weights(cls, ins, rank, PUBLISHED_MERGE)
    published = np.array(expected["dynamic_weight"])
    np.testing.assert_allclose(weights[0], published / published.max(), rtol=1e-6)
    bags = perturb(np.array([expected["seed"]]), SCALES, SHIFTS)
    spans, share = merge(bags, weights, PUBLISHED_MERGE.top_k, PUBLISHED_MERGE.ties)
    assert sorted(np.flatnonzero(share[0])) == sorted(expected["top8_indices"])
    # The published sum of weights has 1e-8 added: 4e-8 of 20 s.
    np.testing.assert_allclose(spans[0], expected["box_seconds"], atol=2e-6)
    final = repair(spans, np.array([22.0]), np.array([1]), (0.0, 127.36), PUBLISHED_MERGE)
    np.testing.assert_allclose(final[0], expected["final_json_segment"], atol=1e-9)


def test_golden_ties(golden):
    """With tied weights the published order takes a left member and leaves its mirror image: a shift to the left."""
    expected = golden("pser")["merge_rank_only"]
    bags = perturb(np.array([expected["seed"]]), SCALES, SHIFTS)
    weights = seed_tious(SCALES, SHIFTS)[None]
    spans, share = merge(bags, weights, 8, "first")
    assert sorted(np.flatnonzero(share[0])) == sorted(expected["top8_indices_stable"])
    np.testing.assert_allclose(spans[0], expected["box_seconds"], atol=1e-6)
    spans, share = merge(bags, weights, 8, "all")
    assert sorted(np.flatnonzero(share[0])) == sorted([*expected["top8_indices_stable"], 14])
    assert spans[0].mean() == pytest.approx(22.0, abs=1e-9)


def test_golden_clamp(golden):
    expected = golden("pser")["final_clamp_example"]
    last_row = (expected["T_snippets"] - 1) / golden("pser")["constants"]["snippets_per_second"]
    spans = np.array([expected["box_seconds"]])
    found = repair(spans, np.array([60.0]), np.array([0]), (0.0, last_row), PUBLISHED_MERGE)
    np.testing.assert_allclose(found[0], expected["clamped_json_segment"], atol=1e-9)


logits = st.lists(st.floats(-30, 30), min_size=12, max_size=12).map(lambda x: np.array(x).reshape(2, 6))


@given(logits, logits, logits, st.integers(1, 8), st.sampled_from(["all", "first"]), st.integers(0, 9))
def test_merge_is_a_convex_combination_of_the_best_members(cls, ins, rank, top_k, ties, seed):
    config = MergeConfig(instance_power=1.0, rank_power=1.0)
    weights = member_weights(cls, ins, 1 / (1 + np.exp(-rank)), config)
    assert np.isfinite(weights).all() and (weights.max(1) == 1).all()
    start = np.random.default_rng(seed).uniform(0, 50, (2, 6))
    bags = np.stack([start, start + np.random.default_rng(seed + 1).uniform(1, 20, (2, 6))], -1)
    spans, share = merge(bags, weights, top_k, ties)
    np.testing.assert_allclose(share.sum(1), 1)
    assert (share >= 0).all()
    for bag, mine, span in zip(bags, share, spans, strict=True):
        chosen = bag[mine > 0]
        assert (span >= chosen.min(0) - 1e-9).all() and (span <= chosen.max(0) + 1e-9).all()
        assert span[0] <= span[1]
    count = np.array([np.sum(w >= np.sort(w)[::-1][min(top_k, 6) - 1] * (1 - 1e-6)) for w in weights])
    expected = np.minimum(top_k, 6) if ties == "first" else count
    positive = (weights > 0).sum(1)  # weights that vanish in floating point take no part
    np.testing.assert_array_equal((share > 0).sum(1), np.minimum(expected, positive))
    turned = merge(bags[::-1], weights[::-1], top_k, ties)[0]
    np.testing.assert_array_equal(turned, spans[::-1])


@given(st.permutations(range(21)))
def test_without_ties_to_break_the_order_of_members_does_not_matter(order):
    bags, weights = perturb(np.array([[3.0, 9.0]]), SCALES, SHIFTS), seed_tious(SCALES, SHIFTS)[None]
    order = list(order)
    for top_k in (None, 4, 8):
        np.testing.assert_allclose(merge(bags[:, order], weights[:, order], top_k)[0], merge(bags, weights, top_k)[0])


def test_powers_leave_a_score_out():
    rng = np.random.default_rng(0)
    cls, ins, rank = rng.normal(size=(2, 9)), rng.normal(size=(2, 9)), rng.uniform(0.1, 0.9, (2, 9))
    parts = {"class_power": 1 / (1 + np.exp(-cls)), "instance_power": np.exp(ins), "rank_power": rank}
    off = dict.fromkeys(parts, 0.0)
    for name, score in parts.items():
        found = member_weights(cls, ins, rank, MergeConfig(**(off | {name: 2.0})))
        np.testing.assert_allclose(found, (score / score.max(1, keepdims=True)) ** 2)


def test_repairs_are_separate_options():
    time, label = np.array([5.0, 9.0, 9.5]), np.array([0, 0, 1])
    spans = np.array([[4.0, 12.0], [9.5, 11.0], [3.0, 30.0]])
    off = MergeConfig(contain_point=False, separate=False)

    def done(config):
        return repair(spans, time, label, (0.0, 20.0), config).tolist()

    assert done(off) == [[4, 12], [9.5, 11], [3, 20]]
    assert done(off.model_copy(update={"separate": True})) == [[4, 7], [9.5, 11], [3, 20]]
    assert done(off.model_copy(update={"contain_point": True})) == [[4, 12], [9, 11], [3, 20]]


@given(st.lists(st.tuples(st.floats(-50, 150), st.floats(0, 40)), min_size=1, max_size=5), st.booleans())
def test_repaired_segments_are_valid(rows, faithful):
    time = np.linspace(1, 99, len(rows))
    spans = np.array([(s, s + n) for s, n in rows])
    config = PUBLISHED_MERGE if faithful else MergeConfig()
    found = repair(spans, time, np.zeros(len(rows), np.int64), (0.0, 100.0), config)
    assert (found[:, 0] >= 0).all() and (found[:, 1] <= 100).all() and (found[:, 0] < found[:, 1]).all()
    if not faithful:
        assert ((found[:, 0] <= time) & (time <= found[:, 1])).all()


# -- options -----------------------------------------------------------------------------------------------------


def test_faithful_sets_every_published_option():
    """The faithful-mode checklist of the method."""
    for one in declared(PserLabeler, "labels"):
        ours = one.key == "faithful" or one.key.startswith("cross_fitting.")
        assert ours or one.said.paper is not Unsaid, f"{one.key} has no published value"
    assert PUBLISHED.refine == "bag"
    rule, bag, negatives, heads, final = (
        getattr(PUBLISHED, group) for group in ("seed_rule", "bag", "negatives", "heads", "merge")
    )
    assert (rule.neighbours, rule.crossing, rule.half_width, rule.inside_video) == ("any-class", "discard", 1.0, False)
    assert bag.scales == [0.5, 0.7, 0.9, 1.0, 1.1, 1.3, 1.5] and bag.shifts == [0, -0.1, 0.1]
    assert (negatives.count, negatives.tiou_threshold, negatives.mean_over, negatives.weight) == (500, 0.3, "all", 0.5)
    assert (heads.bins, heads.alignment, heads.project, heads.hidden) == (8, "published", None, 1024)
    assert (heads.bag_mean, heads.focal, heads.rank_weight) == ("add", 2, 1)
    assert (heads.lr, heads.weight_decay, heads.schedule, heads.snapshot_epochs) == (1e-4, 5e-4, "constant", 0)
    assert (heads.batch_size, heads.bags_per_item, heads.mean_over) == (16, None, "videos")
    assert heads.epochs * (200 // heads.batch_size) == pytest.approx(1600, abs=5)
    assert (final.top_k, final.ties, final.class_power, final.instance_power, final.rank_power) == (8, "first", 1, 1, 1)
    assert (final.clamp, final.decimals, final.contain_point, final.separate) == ("snippets", 3, False, False)


def test_default_has_the_recommended_fixes():
    default = PserLabeler()
    assert default.seed_rule.crossing == "clip" and default.seed_rule.inside_video
    assert default.heads.alignment == "centred" and default.heads.snapshot_epochs > 0
    assert default.merge.clamp == "duration" and default.merge.ties == "all" and default.merge.decimals is None
    assert default.negatives.mean_over == "valid"


def test_faithful_refuses_contradictions_but_not_a_budget():
    with pytest.raises(ValidationError) as caught:
        PserLabeler(faithful=True, merge={"top_k": 3}, bag={"shifts": [0.0]})
    assert "sets bag.shifts to [0.0, -0.1, 0.1], found [0.0]; merge.top_k to 8, found 3" in str(caught.value)
    assert PserLabeler(faithful=True, heads={"epochs": 2}).heads.epochs == 2
    assert PserLabeler(faithful=True, heads={"epochs": 2}).heads.bag_mean == "add"
    assert PserLabeler.model_validate(PUBLISHED.model_dump()) == PUBLISHED


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"bag": {"scale": [1.0]}}, "bag.scale"),
        ({"bag": {"scales": []}}, "bag.scales"),
        ({"bag": {"scales": [0.0]}}, "bag.scales"),
        ({"merge": {"top_k": 0}}, "merge.top_k"),
        ({"heads": {"bins": "8"}}, "heads.bins"),
        ({"faithful": 1}, "faithful"),
        ({"faithful": True, "bag": 3}, "bag"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(ValidationError, match=message):
        PserLabeler.model_validate(options)


def test_training_reads_no_ground_truth():
    modules = [tad.methods.pser.labeler, tad.methods.pser.heads, tad.methods.pser.merge, tad.methods.common.seeds]
    for module in [*modules, tad.methods.pser.model]:
        tree = ast.parse(inspect.getsource(module))
        names = {n.module for n in ast.walk(tree) if isinstance(n, ast.ImportFrom)}
        assert names and not {n for n in names if n and "ground_truth" in n}


# -- the whole of it -----------------------------------------------------------------------------------------------

SMALL = {"refine": "bag", "heads": {"hidden": 24, "epochs": 2}, "negatives": {"count": 20}}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return tiny_dataset(tmp_path_factory.mktemp("pser") / "data", videos=5, classes=3, dim=8)


def rough_proposals(data, role="train"):
    rng = np.random.default_rng(0)
    return [
        (v, max(0.0, t - rng.uniform(0.5, 3)), t + rng.uniform(0.5, 3), data.classes[c], 0.5)
        for v in data.videos(role)
        for t, c in zip(*data.points(v), strict=True)
    ]


@pytest.mark.parametrize("faithful", [False, True])
def test_labels_answer_to_the_points(data, tmp_path, faithful):
    engine = TinyEngine(data, 0, tmp_path)
    options = {"heads": SMALL["heads"]} if faithful else SMALL
    labeler = PserLabeler.model_validate({"faithful": faithful, **options})
    proposals = adopted(engine, rough_proposals(data))
    round = round_of(engine, proposals=proposals)
    labels, seeds = labeler.label(round).segments.segments(), labeler.seeds(round).segments()
    assert labels.video_ids == seeds.video_ids and labels.labels == seeds.labels
    np.testing.assert_array_equal(labels.point, seeds.point)
    expected = [(v, t) for v in data.videos("train") for t in data.points(v).time]
    assert list(zip(labels.video_ids, labels.point, strict=True)) == expected
    assert ((labels.score >= 0) & (labels.score <= 1)).all() and len(np.unique(labels.score)) > 1
    end = np.array([data.duration(v) for v in labels.video_ids])
    assert (labels.end <= end).all() and (labels.start >= 0).all()
    assert not np.allclose(labels.spans, seeds.spans), "labels are not just the seeds"
    assert (paired_tiou(labels.spans, seeds.spans) > 0.3).mean() > 0.9
    if faithful:
        last = np.array([data.grid(v).from_edge(data.grid(v).length - 1.0) for v in labels.video_ids])
        assert (labels.end <= last + 1e-3).all()
        np.testing.assert_allclose(labels.spans, labels.spans.round(3), atol=1e-9)
    assert set(labels.table.column("source").to_pylist()) == {"pser/refine@0"}
    again = labeler.label(round_of(TinyEngine(data, 0, tmp_path / "again"), proposals=proposals)).segments
    assert again.segments().table.equals(labels.table), "the same seed gives the same labels"


def test_the_embedding_is_read_instead_of_the_features(data, tmp_path):
    engine = TinyEngine(data, 0, tmp_path)
    proposals = adopted(engine, rough_proposals(data))
    labeler = PserLabeler.model_validate(SMALL)

    class Doubled:
        name, version, output, config = "test/embed", 1, "arrays", labeler.bag

        def open(self, context):
            def embed(video):
                rows = np.asarray(context.data.features(video), np.float32)
                return {"embedding": np.concatenate([rows, -rows], 1).astype(np.float16)}

            return embed

    embedding = engine.map(Doubled())
    fit = HeadsFit(_fit_config(labeler))
    model = engine.fit(fit, {"proposals": proposals, "embedding": embedding})
    assert model.model()["settings"]["architecture"]["dim"] == 16
    labels = labeler.label(round_of(engine, proposals=proposals, embedding=embedding)).segments.segments()
    assert len(labels) == sum(len(data.points(v).time) for v in data.videos("train"))
    with pytest.raises(RunError, match=r"trained with dim = 16, but .* has 8"):
        engine.map(Refine(_refine_config(labeler)), {"proposals": proposals, "model": model})


def _fit_config(labeler):
    from tad.methods.pser.heads import FitConfig

    return FitConfig(**{name: getattr(labeler, name) for name in FitConfig.model_fields})


def _refine_config(labeler):
    from tad.methods.pser.labeler import RefineConfig

    return RefineConfig(seed_rule=labeler.seed_rule, bag=labeler.bag, merge=labeler.merge, centred=True)


def test_merging_otherwise_trains_nothing_again(data, tmp_path):
    engine = TinyEngine(data, 0, tmp_path)
    round = round_of(engine, proposals=adopted(engine, rough_proposals(data)))
    trained = []
    fit, engine.fit = engine.fit, lambda *a, **k: trained.append(fit(*a, **k)) or trained[-1]
    labels = [
        PserLabeler.model_validate(SMALL | {"merge": merge_options}).label(round).segments
        for merge_options in ({}, {"top_k": 1})
    ]
    assert trained[0] == trained[1] and labels[0] != labels[1]


def test_without_points_there_is_nothing_to_train_on(data, tmp_path):
    import shutil

    from tad.data.dataset import Dataset

    folder = tmp_path / "bare"
    shutil.copytree(data.root, folder)
    (folder / "points.csv").write_text("video_id,label,time\n")
    bare = Dataset.open(folder)
    engine = TinyEngine(bare, 0, tmp_path)
    rows = [(bare.videos("train")[0], 0.0, 1.0, bare.classes[0], 0.5)]
    with pytest.raises((DataError, RunError), match="no training video has a point"):
        PserLabeler.model_validate(SMALL).label(round_of(engine, proposals=adopted(engine, rows)))


def test_videos_without_proposals_fall_back_to_windows(data, tmp_path):
    engine = TinyEngine(data, 0, tmp_path)
    nothing = engine.adopt(Segments.empty(), "proposals")
    seeds = PserLabeler().seeds(round_of(engine, proposals=nothing)).segments()
    np.testing.assert_allclose(seeds.score, 0.2)
    assert (seeds.end - seeds.start <= 2 + 1e-9).all()
