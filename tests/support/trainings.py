"""Every method that trains, with a learning rate at which it diverges."""

from __future__ import annotations

from tad.methods.actionformer.detector import ActionFormerDetector
from tad.methods.apl.actionformer import AplActionFormerDetector
from tad.methods.bmn.detector import BmnDetector
from tad.methods.gaufuse.proposer import RskpProposer
from tad.methods.hrpro.detector import HrproInstanceDetector
from tad.methods.hrpro.proposer import HrproProposer
from tad.methods.potloc.detector import PotlocDetector
from tad.methods.snippet.proposer import SnippetProposer

MUCH = 1e30
LACP = {"video_weight": 1.0, "score_contrast_weight": 1.0, "feature_contrast_weight": 1.0, "lr": MUCH, "epochs": 3}
PROPOSERS = [
    SnippetProposer(training={"lr": MUCH, "epochs": 3}),
    SnippetProposer(training=LACP),
    HrproProposer(training={"lr": MUCH, "epochs": 3, "heads": 4}),
    RskpProposer(training={"lr": MUCH, "epochs": 3, "memory_epochs": 1}),
]
DETECTORS = [
    ActionFormerDetector(training={"lr": MUCH, "epochs": 3}),
    AplActionFormerDetector(training={"lr": MUCH, "epochs": 3, "contrast_weight": 0.1, "quality": {"enabled": True}}),
    HrproInstanceDetector(training={"lr": MUCH, "epochs": 3}),
    PotlocDetector(training={"lr": MUCH, "epochs": 3}),
    BmnDetector(training={"lr": MUCH, "epochs": 3, "length": 32, "samples": 8}),
]
