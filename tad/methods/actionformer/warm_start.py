"""Where the detector `actionformer` starts from: another model's weights, of the same pyramid.

That model may be the same detector's of an earlier round, a proposer's, or a pyramid pre-trained without heads; what it
does not have starts fresh. Options of the network that are null are taken from it.
"""

from __future__ import annotations

from tad.methods.common.warm_start import Kin
from tad.stages import StageConfig

NETWORK = ("width", "heads", "levels", "upsample", "window")
"""Options of the network in which both trainings have to agree; null ones are taken from the model before."""
PYRAMID = Kin(
    same=("dim", "classes", *NETWORK),
    always=("dim", *NETWORK),
    parts=("embedding.", "stem.", "branch.", "necks."),
    refusal="no pyramid of actionformer, so the detector cannot start from it; use proposer actionformer, or set init "
    "to none",
)


def differing(options: StageConfig, theirs: StageConfig) -> list[str]:
    """Options of the network that two trainings set, and not alike: the one cannot go on from the other."""
    pairs = [(name, getattr(options, name), getattr(theirs, name)) for name in NETWORK]
    return [name for name, mine, other in pairs if None not in (mine, other) and mine != other]
