"""The detector `hrpro-instance`: items, losses, negatives, detections."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from pydantic import ValidationError

import tad.methods.hrpro.detector as detecting
import tad.methods.hrpro.detector_model as modelling
from tad.data.segments import Segments
from tad.errors import DataError, RunError
from tad.methods.hrpro.detector import HrproInstanceDetector, InstanceDecoding, InstanceDetect, InstanceDetection
from tad.methods.hrpro.detector_model import InstanceModel, framed
from tad.methods.hrpro.detector_training import ANY, InstanceTask, InstanceTraining, Item, Proposals, overlap, targets
from tad.methods.hrpro.labeler import HrproLabeler
from tad.methods.hrpro.negatives import Negatives, NegativesConfig
from tad.methods.snippet.mining import mine
from tad.methods.snippet.proposer import SnippetProposer
from tad.methods.snippet.training import TrainingConfig
from tad.ops.grouping import runs
from tad.ops.iou import tiou
from tad.stages import Context, one_worker
from tests.methods.common.test_seeds import adopted
from tests.support.tiny import TinyEngine, tiny_dataset

# -- training ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return tiny_dataset(tmp_path_factory.mktemp("instance") / "data", videos=6, classes=2, dim=12)


@pytest.fixture(scope="module")
def engine(data, tmp_path_factory):
    return TinyEngine(data, 0, tmp_path_factory.mktemp("engine"))


@pytest.fixture(scope="module")
def inputs(engine):
    """The proposer's scores and candidates of both roles, and the reliable proposals."""
    proposer = SnippetProposer(training=TrainingConfig(epochs=8))
    model = proposer.train(engine)
    scores = {role: proposer.score(engine, model, role) for role in ("train", "test")}
    candidates = {r: proposer.propose(engine, scores[r], r, suppressed=False) for r in scores}
    return scores, candidates, HrproLabeler().label(engine, candidates["train"], None)


@pytest.fixture(scope="module")
def context(engine, inputs):
    scores, candidates, labels = inputs
    negatives = engine.map(Negatives(NegativesConfig()), {"scores": scores["train"], "candidates": candidates["train"]})
    found = {"labels": labels, "candidates": candidates["train"], "negatives": negatives, "scores": scores["train"]}
    return Context(engine.data, found, engine.data.videos("train"), 0, "test@0")


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
    task = task_of(context, score_weight=0.7, regression_weight=1.9)
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


# -- negatives ---------------------------------------------------------------------------------------------------


def test_negatives_are_seconds_within_the_mined_background(context):
    data, candidates = context.data, context.inputs["candidates"].segments().by_video()
    draw = Negatives(NegativesConfig(share=0.7, background_threshold=0.6)).open(context)
    drawn = 0
    for video in context.videos:
        found, grid = draw(video), data.grid(video)
        assert len(found) <= int(0.7 * len(candidates[video]))
        drawn += len(found)
        background = torch.from_numpy(np.array(context.inputs["scores"].array("background", video)))[None]
        rows = torch.zeros(1, grid.length, 1, dtype=torch.bool)
        rows[0, grid.row(data.points(video).time)] = True
        mined = mine(background, rows, torch.ones(1, grid.length, dtype=torch.bool), 0.0, 0.6).background[0]
        allowed = grid.from_edge(runs(mined.numpy()).astype(float))
        for start, end in found.spans:
            assert ((allowed[:, 0] <= start + 1e-9) & (end <= allowed[:, 1] + 1e-9)).any()
        assert (found.score == 0).all()
    assert drawn > 10


def test_negatives_depend_on_seed_and_video_only(context):
    stage = Negatives(NegativesConfig())
    forwards, backwards = stage.open(context), stage.open(context)
    first = {v: forwards(v).spans.tolist() for v in context.videos}
    assert first == {v: backwards(v).spans.tolist() for v in reversed(context.videos)}
    other = stage.open(Context(context.data, context.inputs, context.videos, 1))
    assert first != {v: other(v).spans.tolist() for v in context.videos}


def test_no_negatives_for_a_share_of_zero(context):
    draw = Negatives(NegativesConfig(share=0.0)).open(context)
    assert not any(len(draw(video)) for video in context.videos)


# -- detections --------------------------------------------------------------------------------------------------


QUICK = {"epochs": 3}


@pytest.fixture(scope="module")
def model(engine, inputs):
    scores, candidates, labels = inputs
    return HrproInstanceDetector(training=QUICK).train(engine, labels, scores["train"], candidates["train"])


@pytest.mark.parametrize("faithful", [False, True])
@pytest.mark.parametrize("role", ["train", "test"])
def test_detections_lie_inside_the_video(engine, inputs, model, role, faithful):
    scores, candidates, _ = inputs
    detector = HrproInstanceDetector(faithful=faithful)
    found = detector.detect(engine, model, role, scores[role], candidates[role]).segments()
    ends = np.array([engine.data.duration(v) for v in found.video_ids])
    assert (found.start >= 0).all() and (found.end <= ends).all() and np.isfinite(found.score).all()
    pairs = set(zip(candidates[role].segments().video_ids, candidates[role].segments().labels, strict=True))
    assert set(zip(found.video_ids, found.labels, strict=True)) == pairs
    assert set(found.codes("source")[1]) == {"hrpro-instance/detect@0"}
    if faithful:
        assert len(found) == 2 * len(candidates[role].segments()), "nothing is dropped"


def decoded(engine, inputs, model, candidates=None, postprocess=None, **options):
    """Detections of the test videos."""
    scores, found, _ = inputs
    options = {"min_score": None, "max_detections": None, **options}
    stage = InstanceDetect(InstanceDetection.model_validate({"decode": options, "postprocess": postprocess or {}}))
    chosen = found["test"] if candidates is None else candidates
    return engine.map(stage, {"model": model, "scores": scores["test"], "candidates": chosen}, "test").segments()


def test_kept_segments_and_fused_scores_by_hand(engine, inputs, model):
    """With a very narrow Gaussian nothing is lowered, so the fused score of each segment can be read."""
    data, video = engine.data, engine.data.videos("test")[0]
    rows = [(video, 1.0, 4.0, data.classes[0], 0.8), (video, 20.0, 26.0, data.classes[1], -0.2)]
    candidates = adopted(engine, rows)
    saved = model.model()
    module = InstanceModel(**saved["settings"]["architecture"])
    module.load_state_dict(saved["state"])
    module.eval()
    grid, features = data.grid(video), torch.from_numpy(np.array(data.features(video), dtype=np.float32))

    def ask(seconds):
        spans = torch.from_numpy(grid.to_position(np.array(seconds)))
        with torch.no_grad():
            answer = module(*framed([features]), spans, torch.zeros(len(spans), dtype=torch.long))
        return answer.completeness.numpy(), grid.from_position(answer.refined.numpy())

    spans, contrast = np.array([row[1:3] for row in rows]), np.array([0.8, -0.2])
    factor = np.array(inputs[0]["test"].array("video", video))[:2]
    q, refined = ask(spans)
    again, _ = ask(refined)
    assert (refined[:, 0] >= 0).all() and (refined[:, 1] > refined[:, 0]).all(), "nothing to repair here"
    found = decoded(engine, inputs, model, candidates, keep="original", contrast_weight=3.0, score_weight=2.0)
    np.testing.assert_allclose(found.spans, spans)
    np.testing.assert_allclose(found.score, (3 * contrast + 2 * q * factor) / 5, atol=1e-6)
    found = decoded(engine, inputs, model, candidates, keep="refined", score_weight=1.0, video_factor=False)
    order = np.argsort(found.start)
    np.testing.assert_allclose(found.spans[order], refined, atol=1e-6)
    np.testing.assert_allclose(found.score[order], (contrast + again) / 2, atol=1e-6)
    both = decoded(engine, inputs, model, candidates, keep="both", contrast_weight=0.0)
    assert len(both) == 4 and both.score.max() == pytest.approx(max(*(q * factor), *(again * factor)), abs=1e-6)


def test_the_published_suppression_reaches_a_second_further(engine, inputs, model):
    video, name = engine.data.videos("test")[0], engine.data.classes[0]
    candidates = adopted(engine, [(video, 1.0, 2.0, name, 0.9), (video, 2.2, 3.2, name, 0.8)])
    options = {"keep": "original", "score_weight": 0.0}
    plain = decoded(engine, inputs, model, candidates, **options)
    published = decoded(engine, inputs, model, candidates, {"stretch": 1.0}, **options)
    np.testing.assert_allclose(plain.score, [0.9, 0.8], atol=1e-6)
    np.testing.assert_allclose(published.score, [0.9, 0.8 * np.exp(-(0.25**2) / 0.3)], atol=1e-6)
    np.testing.assert_allclose(published.spans, [[1, 2], [2.2, 3.2]])


def test_wild_offsets_still_give_segments_inside_the_video(engine, inputs, model, monkeypatch):
    """A model whose boundaries cross each other and leave the video."""
    wild = InstanceModel(**model.model()["settings"]["architecture"])
    with torch.no_grad():
        for head, offset in ((wild.start, 30.0), (wild.end, -40.0)):
            head[-1].weight.zero_()
            head[-1].bias.fill_(offset)
    found = type(model)(model.fingerprint, model.path)
    saved = {"state": wild.state_dict(), "settings": model.model()["settings"]}
    monkeypatch.setattr(type(model), "model", lambda self: saved)
    context = Context(
        engine.data,
        {"model": found, "scores": inputs[0]["test"], "candidates": inputs[1]["test"]},
        engine.data.videos("test"),
        0,
    )
    detect = InstanceDetect(InstanceDetection(decode=InstanceDecoding(keep="refined", min_score=None))).open(context)
    for video in context.videos:
        segments = detect(video)
        assert len(segments) and (segments.end <= engine.data.duration(video)).all()
        assert np.isfinite(segments.score).all()


def test_limits(engine, inputs, model):
    few = decoded(engine, inputs, model, max_detections=7)
    assert np.bincount(few.codes("video_id")[0]).max() == 7
    best = decoded(engine, inputs, model, min_score=0.1)
    everything = decoded(engine, inputs, model)
    assert 0 < len(best) < len(everything) and best.score.min() >= 0.1


def test_chunks_change_nothing(engine, inputs, model, monkeypatch, tmp_path):
    whole = decoded(engine, inputs, model)
    monkeypatch.setattr(detecting, "CHUNK", 5)
    monkeypatch.setattr(modelling, "CHUNK", 2)
    parts = decoded(TinyEngine(engine.data, 0, tmp_path), inputs, model)
    np.testing.assert_allclose(np.sort(parts.score), np.sort(whole.score), atol=1e-6)


def test_the_same_seed_trains_the_same_model(engine, inputs, model, tmp_path):
    scores, candidates, labels = inputs
    detector = HrproInstanceDetector(training=QUICK)
    again = detector.train(TinyEngine(engine.data, 0, tmp_path), labels, scores["train"], candidates["train"])
    other = detector.train(TinyEngine(engine.data, 1, tmp_path), labels, scores["train"], candidates["train"])
    for key, value in model.model()["state"].items():
        assert torch.equal(again.model()["state"][key], value)
        assert not torch.equal(other.model()["state"][key], value)


def test_training_teaches_completeness_and_boundaries(engine, inputs):
    """On the training videos, with pseudo-labels as targets: what the losses are for."""
    scores, candidates, labels = inputs
    detector = HrproInstanceDetector(training={"epochs": 40, "dropout": 0.0})
    model = detector.train(engine, labels, scores["train"], candidates["train"])
    wanted, given = labels.segments().by_video(), candidates["train"].segments().by_video()
    context = Context(engine.data, {"model": model}, engine.data.videos("train"), 0)
    run = detecting.load(context)
    completeness, reached, before, after = [], [], [], []
    for video in context.videos:
        spans = given[video].spans
        segments, q = run(video, spans, "both")
        table = tiou(segments, wanted[video].spans)
        best = table.max(1)
        good = (best[: len(spans)] >= 0.3) & (best[: len(spans)] < 0.95)
        completeness.append(q)
        reached.append(best)
        before.append(best[: len(spans)][good])
        after.append(best[len(spans) :][good])
    assert np.corrcoef(np.concatenate(completeness), np.concatenate(reached))[0, 1] > 0.5
    assert np.concatenate(after).mean() > np.concatenate(before).mean() + 0.02


# -- configs -----------------------------------------------------------------------------------------------------


def test_missing_inputs_are_named(engine, inputs, model):
    scores, _, labels = inputs
    detector = HrproInstanceDetector()
    with pytest.raises(RunError, match="its scores and candidates are missing"):
        detector.train(engine, labels)
    with pytest.raises(RunError, match="its candidates are missing"):
        detector.detect(engine, model, "test", scores["test"])


def test_features_of_another_width_are_refused(inputs, model, tmp_path):
    other = tiny_dataset(tmp_path / "data", videos=2, classes=2, dim=9)
    found = {"model": model, "scores": inputs[0]["test"], "candidates": inputs[1]["test"]}
    with pytest.raises(RunError, match=r"trained with dim = 12, but .* has 9"):
        InstanceDetect(InstanceDetection()).open(Context(other, found, other.videos("test"), 0))


def test_a_video_without_candidates_has_no_detections(engine, inputs, model):
    data = engine.data
    only = adopted(engine, [(data.videos("test")[0], 1.0, 4.0, data.classes[0], 0.8)])
    found = decoded(engine, inputs, model, only)
    assert isinstance(found, Segments) and set(found.video_ids) == {data.videos("test")[0]}


def test_faithful_sets_every_option_and_refuses_contradictions():
    faithful = HrproInstanceDetector(faithful=True)
    for group, options in detecting.PUBLISHED.items():
        assert set(options) == set(type(getattr(faithful, group)).model_fields)
        assert getattr(faithful, group).model_dump() == options
    assert HrproInstanceDetector.model_validate(faithful.model_dump(mode="json")) == faithful
    assert HrproInstanceDetector(faithful=True, training={"epochs": 3}).training.epochs == 3
    with pytest.raises(ValidationError, match=r"sets decode.video_factor to False, found True"):
        HrproInstanceDetector(faithful=True, decode={"video_factor": True})


def test_weights_that_leave_no_score_are_refused():
    with pytest.raises(ValidationError, match="must be above 0"):
        InstanceDecoding(contrast_weight=0.0, score_weight=0.0)
