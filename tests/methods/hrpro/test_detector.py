"""The detector `hrpro-instance`: detections, what training teaches, its config."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from pydantic import ValidationError

import tad.methods.hrpro.detector as detecting
import tad.methods.hrpro.detector_model as modelling
from tad.data.segments import Segments
from tad.errors import RunError
from tad.methods.hrpro.detector import HrproInstanceDetector, InstanceDecoding, InstanceDetect, InstanceDetection
from tad.methods.hrpro.detector_model import InstanceModel, framed
from tad.ops.iou import tiou
from tad.options import Unsaid, declared
from tad.stages import Context
from tests.support.rounds import round_of, taught
from tests.support.tiny import TinyEngine, adopted, tiny_dataset

QUICK = {"epochs": 3}


def given(engine, inputs, role="train"):
    """A round with the proposer's scores and candidates."""
    return round_of(engine, role, scores=inputs[0][role], candidates=inputs[1][role])


@pytest.fixture(scope="module")
def model(engine, inputs):
    return HrproInstanceDetector(training=QUICK).train(given(engine, inputs), taught(inputs[2]))


@pytest.mark.parametrize("faithful", [False, True])
@pytest.mark.parametrize("role", ["train", "test"])
def test_detections_lie_inside_the_video(engine, inputs, model, role, faithful):
    candidates = inputs[1]
    detector = HrproInstanceDetector(faithful=faithful)
    found = detector.detect(given(engine, inputs, role), model).segments()
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
    found = decoded(engine, inputs, model, candidates, keep="original", contrast_weight=3.0, completeness_weight=2.0)
    np.testing.assert_allclose(found.spans, spans)
    np.testing.assert_allclose(found.score, (3 * contrast + 2 * q * factor) / 5, atol=1e-6)
    found = decoded(engine, inputs, model, candidates, keep="refined", completeness_weight=1.0, video_factor=False)
    order = np.argsort(found.start)
    np.testing.assert_allclose(found.spans[order], refined, atol=1e-6)
    np.testing.assert_allclose(found.score[order], (contrast + again) / 2, atol=1e-6)
    both = decoded(engine, inputs, model, candidates, keep="both", contrast_weight=0.0)
    assert len(both) == 4 and both.score.max() == pytest.approx(max(*(q * factor), *(again * factor)), abs=1e-6)


def test_the_published_suppression_reaches_a_second_further(engine, inputs, model):
    video, name = engine.data.videos("test")[0], engine.data.classes[0]
    candidates = adopted(engine, [(video, 1.0, 2.0, name, 0.9), (video, 2.2, 3.2, name, 0.8)])
    options = {"keep": "original", "completeness_weight": 0.0}
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
    detector, labels = HrproInstanceDetector(training=QUICK), taught(inputs[2])
    again = detector.train(given(TinyEngine(engine.data, 0, tmp_path), inputs), labels)
    other = detector.train(given(TinyEngine(engine.data, 1, tmp_path), inputs), labels)
    for key, value in model.model()["state"].items():
        assert torch.equal(again.model()["state"][key], value)
        assert not torch.equal(other.model()["state"][key], value)


def test_training_teaches_completeness_and_boundaries(engine, inputs):
    """On the training videos, with pseudo-labels as targets: what the losses are for."""
    _, candidates, labels = inputs
    detector = HrproInstanceDetector(training={"epochs": 80, "dropout": 0.0})
    model = detector.train(given(engine, inputs), taught(labels))
    wanted, found = labels.segments().by_video(), candidates["train"].segments().by_video()
    context = Context(engine.data, {"model": model}, engine.data.videos("train"), 0)
    run = detecting.load(context)
    completeness, reached, before, after = [], [], [], []
    for video in context.videos:
        spans = found[video].spans
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


def test_a_proposer_without_scores_is_named(engine, inputs, model):
    detector, bare = HrproInstanceDetector(), round_of(engine, candidates=inputs[1]["train"])
    for ask in (lambda: detector.train(bare, taught(inputs[2])), lambda: detector.detect(bare, model)):
        with pytest.raises(RunError, match="detector hrpro-instance reads snippet scores, and the proposer has none"):
            ask()


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
    for one in declared(HrproInstanceDetector, "detector"):
        assert one.said.paper is not Unsaid or one.key == "faithful", f"{one.key} has no published value"
    assert HrproInstanceDetector.model_validate(faithful.model_dump(mode="json")) == faithful
    assert HrproInstanceDetector(faithful=True, training={"epochs": 3}).training.epochs == 3
    with pytest.raises(ValidationError, match=r"sets decode.video_factor to False, found True"):
        HrproInstanceDetector(faithful=True, decode={"video_factor": True})


def test_weights_that_leave_no_score_are_refused():
    with pytest.raises(ValidationError, match="must be above 0"):
        InstanceDecoding(contrast_weight=0.0, completeness_weight=0.0)
