"""Post-processing of detections and proposals: soft-NMS, NMS and fusion, under every detector."""

from __future__ import annotations

import numpy as np
import pytest

from tad.errors import ConfigError
from tad.methods.actionformer.detector import ActionFormerDetector
from tad.methods.bmn.detector import BmnDetector
from tad.methods.common.candidates import CandidateConfig, CandidateFusion, candidates
from tad.methods.common.postprocess import Postprocess, postprocess
from tad.methods.hrpro.detector import HrproInstanceDetector
from tad.methods.potloc.detector import PotlocDetector
from tad.methods.pser.seed_labeler import SeedLabeler
from tad.methods.snippet.proposer import SnippetProposer
from tad.ops.fusion import gaussian_fusion
from tad.ops.nms import classwise_nms
from tad.recipe.recipe import load_recipe
from tests.support.rounds import round_of
from tests.support.tiny import TinyEngine, tiny_dataset

DETECTORS = [
    ActionFormerDetector(training={"epochs": 2}),
    HrproInstanceDetector(training={"epochs": 2}),
    PotlocDetector(training={"epochs": 2}),
    BmnDetector(training={"epochs": 2, "length": 32, "samples": 8}, decode={"top_k": 100}),
]


def detections(count=60):
    rng = np.random.default_rng(0)
    start = rng.uniform(0, 60, count)
    return np.stack([start, start + rng.uniform(1, 15, count)], 1), rng.random(count), rng.integers(0, 3, count)


def test_suppression_is_that_of_the_operator():
    spans, scores, labels = detections()
    for method, name in (("soft-nms", "gaussian"), ("nms", "hard")):
        config = Postprocess(suppression=method, sigma=0.4, iou_threshold=0.3)
        rule = {"method": name, "sigma": 0.4, "iou_threshold": 0.3, "min_score": 0.2, "limit": 9}
        _, lowered, classes, rows = classwise_nms(spans, scores, labels, **rule)
        found = postprocess(spans, scores, labels, config, min_score=0.2, limit=9)
        for a, b in zip(found, (spans[rows], lowered, classes), strict=True):
            assert np.array_equal(a, b)


def test_fusion_is_that_of_the_operator():
    spans, scores, labels = detections()
    options = {"temperature": 0.05, "overlap_threshold": 0.5, "overlap": "iou", "aggregate": "max"}
    fused = gaussian_fusion(spans, scores, scores, labels, **options)
    found = postprocess(spans, scores, labels, Postprocess(suppression="gaufuse", **options))
    assert np.array_equal(found.spans, fused.spans) and np.array_equal(found.labels, fused.labels)
    assert np.array_equal(found.scores, fused.scores.astype(np.float32))
    few = postprocess(spans, scores, labels, Postprocess(suppression="gaufuse", **options), min_score=0.8, limit=5)
    assert len(few.scores) == 5 < (fused.scores >= 0.8).sum() and np.array_equal(few.spans, fused.spans[:5])
    high = postprocess(spans, scores, labels, Postprocess(suppression="gaufuse", **options), min_score=0.8)
    assert len(high.scores) == (fused.scores >= 0.8).sum() < len(fused.scores)


@pytest.mark.parametrize("method", ["soft-nms", "nms", "gaufuse"])
def test_a_stretch_is_in_seconds_and_leaves_boundaries_alone(method):
    """Segments of .4 s that are .1 s apart meet only when each lasts a second longer."""
    spans, scores, labels = np.array([[10, 10.4], [10.5, 10.9]]), np.array([0.9, 0.8]), np.zeros(2, dtype=int)
    config = Postprocess(suppression=method, iou_threshold=0.3)
    longer = config.model_copy(update={"stretch": 1.0})
    for unit in (1.0, 25 / 16):
        given = spans * unit, scores, labels
        apart = postprocess(*given, config, second=unit)
        assert np.array_equal(apart.spans, given[0]) and apart.scores == pytest.approx([0.9, 0.8])
        near = postprocess(*given, longer, second=unit)
        if method == "soft-nms":
            assert np.array_equal(near.spans, given[0]) and near.scores[1] < 0.7
        else:
            assert len(near.scores) == 1 and near.spans[0, 0] <= 10.5 * unit and near.spans[0, 1] <= 10.9 * unit


def test_nothing_in_nothing_out():
    none = np.zeros((0, 2)), np.zeros(0), np.zeros(0, dtype=np.int64)
    for method in ("soft-nms", "nms", "gaufuse"):
        found = postprocess(*none, Postprocess(suppression=method), min_score=0.1, limit=3)
        assert [part.shape for part in found] == [(0, 2), (0,), (0,)]


# -- under the detectors ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def engine(tmp_path_factory):
    folder = tmp_path_factory.mktemp("postprocess")
    return TinyEngine(tiny_dataset(folder / "data", videos=5, classes=2, dim=12), 0, folder)


@pytest.fixture(scope="module")
def rounds(engine):
    """By role, a round with a proposer's candidates, scores and model."""
    proposer = SnippetProposer(training={"epochs": 3})
    model, made = proposer.train(round_of(engine)), {}
    for now in (round_of(engine), round_of(engine, "test")):
        candidates = proposer.propose(now, model, suppressed=False)
        made[now.role] = round_of(
            engine, now.role, proposals=candidates, scores=proposer.score(now, model), model=model
        )
    return made


@pytest.mark.parametrize("detector", DETECTORS, ids=lambda d: d.method)
def test_every_detector_suppresses_or_fuses(engine, rounds, detector):
    model = detector.train(rounds["train"], SeedLabeler().label(rounds["train"]))
    found = {}
    for method in ("soft-nms", "nms", "gaufuse"):
        name = f"detector.postprocess.suppression={method}"
        chosen = load_recipe("pser", [f"detector.method={detector.method}", name]).detector
        assert detector.postprocess == chosen.postprocess or method != "soft-nms"
        variant = detector.model_copy(update={"postprocess": chosen.postprocess})
        options = {"train_classes": "given"} if detector.method == "potloc" else {}
        every = {"min_score": 0.0 if detector.method == "actionformer" else None, "max_detections": 5000, **options}
        variant = variant.model_copy(update={"decode": variant.decode.model_copy(update=every)})
        segments = variant.detect(rounds["test"], model).segments()
        ends = np.array([engine.data.duration(v) for v in segments.video_ids])
        assert (segments.start >= 0).all() and (segments.end <= ends).all()
        for rows in segments.by_video().values():
            assert (np.diff(rows.score) <= 0).all()
        found[method] = segments
    # The ends that suppression leaves are the candidates' own; fusion makes new ones, and few of them.
    ends = {method: set(map(tuple, segments.spans.round(9).tolist())) for method, segments in found.items()}
    assert ends["nms"] <= ends["soft-nms"] and not ends["gaufuse"] <= ends["soft-nms"]
    assert 0 < len(found["gaufuse"]) < len(found["soft-nms"])


def test_options_of_other_names_are_refused_before_anything_runs():
    with pytest.raises(ConfigError) as caught:
        load_recipe("hrpro", ["detector.postprocess.suppression=soft", "detector.postprocess.temperature=0"])
    message = str(caught.value)
    assert "detector.postprocess.suppression: input should be 'soft-nms', 'nms' or 'gaufuse', found 'soft'" in message
    assert "detector.postprocess.temperature: input should be greater than 0, found 0" in message


def test_changing_one_option_keeps_the_detectors_other_defaults():
    for name, sigma, threshold in (("hrpro", 0.3, 0.5), ("potloc", 0.3, 0.6), ("pser", 0.5, 0.5)):
        for method in ("nms", "gaufuse"):
            changed = load_recipe(name, [f"detector.postprocess.suppression={method}"]).detector.postprocess
            assert (changed.suppression, changed.sigma, changed.iou_threshold) == (method, sigma, threshold)


# -- proposals -------------------------------------------------------------------------------------------------------


def test_fused_proposals_are_those_of_the_operator():
    rng = np.random.default_rng(1)
    cas = np.clip(np.sin(np.arange(80)[:, None] / [4, 7]) + 0.2 * rng.normal(size=(80, 2)), 0, 1)
    curves, known = (cas, cas.max(1), np.array([0.9, 0.6])), np.array([0, 1])
    plain = candidates(*curves, known, CandidateConfig(suppression="none"))
    confidence = candidates(*curves, known, CandidateConfig(suppression="gaufuse"))
    inner = candidates(*curves, known, CandidateConfig(suppression="gaufuse", fusion=CandidateFusion(weight="inner")))
    means = np.array(
        [
            np.repeat(cas[:, label], 2)[int(2 * start) : int(2 * end)].mean()
            for (start, end), label in zip(plain.spans, plain.labels, strict=True)
        ]
    )
    for found, weights in ((confidence, plain.scores), (inner, means)):
        fused = gaussian_fusion(plain.spans, plain.scores, weights, plain.labels, temperature=0.2)
        np.testing.assert_allclose(found.spans, fused.spans)
        np.testing.assert_allclose(found.scores, fused.scores, rtol=1e-6)
        assert np.array_equal(found.labels, fused.labels)
    assert not np.allclose(confidence.spans, inner.spans)
    assert 2 < len(inner.scores) < len(plain.scores)


def test_fused_proposals_of_a_run(rounds):
    proposer = SnippetProposer(training={"epochs": 3}, candidates={"suppression": "gaufuse"})
    now = rounds["train"]
    fused = proposer.propose(now, now.previous.model).segments()
    every = proposer.propose(now, now.previous.model, suppressed=False)
    assert every.fingerprint == now.proposals(suppressed=False).fingerprint, "candidates do not depend on suppression"
    assert 0 < len(fused) < len(every.segments())
