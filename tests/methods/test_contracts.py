"""What every proposer, labeler and detector must do, whatever its method."""

from __future__ import annotations

import numpy as np
import pytest

from tad.methods.actionformer.detector import ActionFormerDetector
from tad.methods.apl.labeler import AplLabeler
from tad.methods.bmn.detector import BmnDetector
from tad.methods.common.seeds import SeedLabeler
from tad.methods.gaufuse.detector import RskpDetector
from tad.methods.gaufuse.labeler import GaufuseLabeler
from tad.methods.gaufuse.proposer import RskpProposer
from tad.methods.hrpro.detector import HrproInstanceDetector
from tad.methods.hrpro.labeler import HrproLabeler
from tad.methods.hrpro.proposer import HrproProposer
from tad.methods.points.labeler import PointsLabeler
from tad.methods.potloc.detector import PotlocDetector
from tad.methods.potloc.labeler import PotlocLabeler
from tad.methods.pser.heads import HeadsConfig
from tad.methods.pser.labeler import PserLabeler
from tad.methods.snippet.proposer import SnippetProposer
from tad.methods.snippet.training import TrainingConfig
from tests.support.tiny import TinyEngine, tiny_dataset

PROPOSERS = [
    SnippetProposer(training=TrainingConfig(epochs=3)),
    HrproProposer(training={"epochs": 2, "heads": 4}),
    RskpProposer(training={"epochs": 2}),
]
LABELERS = [
    PserLabeler(heads=HeadsConfig(epochs=2)),
    PserLabeler(faithful=True, heads={"epochs": 1}),
    SeedLabeler(),
    HrproLabeler(),
    *(PotlocLabeler(rule=rule) for rule in ("midpoints", "released", "paper")),
    PointsLabeler(),
]
DETECTORS = [
    ActionFormerDetector(epochs=2),
    HrproInstanceDetector(training={"epochs": 2}),
    PotlocDetector(training={"epochs": 2}),
    BmnDetector(training={"epochs": 2, "length": 32, "samples": 8}),
]
WEAK = [
    AplLabeler(),
    GaufuseLabeler(),
    GaufuseLabeler(faithful=True),
    RskpProposer(faithful=True),
    RskpDetector(),
    RskpDetector(faithful=True),
]
"""What needs no points; what it does is in test_rskp_proposer, test_gaufuse and test_apl_labeler."""


def named(role):
    return role.method + ("-faithful" if getattr(role, "faithful", False) else "")


@pytest.fixture(scope="module")
def engine(tmp_path_factory):
    folder = tmp_path_factory.mktemp("contracts")
    return TinyEngine(tiny_dataset(folder / "data", videos=5, classes=2, dim=12), 0, folder)


@pytest.fixture(scope="module")
def proposed(engine):
    model = PROPOSERS[0].train(engine)
    scores = PROPOSERS[0].score(engine, model, "train")
    return PROPOSERS[0].propose(engine, scores, "train"), PROPOSERS[0].embed(engine, model, "train")


def check_segments(engine, artifact, role):
    """Known videos and classes, inside the video, with the stage's name as source."""
    segments, data = artifact.segments(), engine.data
    assert len(segments)
    assert set(segments.codes("video_id")[1]) <= set(data.videos(role))
    assert (segments.label_index(data.classes) >= 0).all()
    ends = np.array([data.duration(v) for v in segments.video_ids])
    assert (segments.start >= 0).all() and (segments.end <= ends + 1e-6).all()
    assert np.isfinite(segments.score).all()
    assert all("/" in source and source.endswith("@0") for source in segments.codes("source")[1])
    return segments


@pytest.mark.parametrize("proposer", PROPOSERS, ids=named)
@pytest.mark.parametrize("role", ["train", "test"])
def test_proposer(engine, proposer, role):
    model = proposer.train(engine)
    scores = proposer.score(engine, model, role)
    for video in engine.data.videos(role):
        length = len(engine.data.features(video))
        cas, background = scores.array("cas", video), scores.array("background", video)
        assert cas.shape == (length, len(engine.data.classes)) and background.shape == (length,)
        assert (np.asarray(cas) >= 0).all() and (np.asarray(cas) <= 1).all()
        assert proposer.embed(engine, model, role).array("embedding", video).shape[0] == length
    check_segments(engine, proposer.propose(engine, scores, role), role)


@pytest.mark.parametrize("labeler", LABELERS, ids=named)
def test_labeler_gives_one_label_per_point_of_its_class(engine, proposed, labeler):
    proposals, embedding = proposed
    artifact = labeler.label(engine, proposals, embedding if labeler.wants_embedding else None)
    for found in (check_segments(engine, artifact, "train"), labeler.seeds(engine, proposals).segments()):
        want = {
            (video, engine.data.classes[c], round(float(t), 6))
            for video in engine.data.videos("train")
            for t, c in zip(*engine.data.points(video), strict=True)
        }
        have = [(r["video_id"], r["label"], round(r["point"], 6)) for r in found.rows()]
        assert set(have) == want and len(have) == len(want)


@pytest.mark.parametrize("detector", DETECTORS, ids=named)
@pytest.mark.parametrize("role", ["train", "test"])
def test_detector(engine, proposed, detector, role):
    labels = SeedLabeler().label(engine, proposed[0], None)
    proposer = PROPOSERS[0]
    inputs = {}
    for of in ("train", role):
        scores = proposer.score(engine, proposer.train(engine), of)
        inputs[of] = (scores, proposer.propose(engine, scores, of, suppressed=False))
    model = detector.train(engine, labels, *inputs["train"])
    segments = check_segments(engine, detector.detect(engine, model, role, *inputs[role]), role)
    per_video = segments.codes("video_id")[0]
    assert np.bincount(per_video).max() <= detector.decode.max_detections
    assert model.model()["settings"]


@pytest.mark.parametrize("role", [*PROPOSERS, *LABELERS, *DETECTORS, *WEAK], ids=named)
def test_a_role_is_its_config(role):
    """A run's folder keeps the config as plain values; the role comes back from them."""
    assert type(role).model_validate(role.model_dump(mode="json")) == role
