"""Every method that trains, with a learning rate at which it diverges, and a round for those that need proposals."""

from __future__ import annotations

from tad.methods.actionformer.detector import ActionFormerDetector
from tad.methods.apl.actionformer import AplActionFormerDetector
from tad.methods.bmn.detector import BmnDetector
from tad.methods.gaufuse.proposer import RskpProposer
from tad.methods.hrpro.detector import HrproInstanceDetector
from tad.methods.hrpro.proposer import HrproProposer
from tad.methods.potloc.detector import PotlocDetector
from tad.methods.snippet.proposer import SnippetProposer
from tad.stages import Engine
from tests.support.rounds import GivenRound, round_of

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


def proposed_round(engine: Engine) -> GivenRound:
    """A round with all that a proposer gives, trained for an epoch."""
    proposer, bare = SnippetProposer(training={"epochs": 1}), round_of(engine)
    model = proposer.train(bare)
    proposals, scores = proposer.propose(bare, model), proposer.score(bare, model)
    return round_of(engine, proposals=proposals, scores=scores, embedding=proposer.embed(bare, model))
