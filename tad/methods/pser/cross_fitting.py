"""Labels whose boundaries are set by models of the other videos: rows, boundaries, and whether they are believed."""

from __future__ import annotations

from tad.methods.pser.boundaries import Boundaries, BoundariesConfig
from tad.methods.pser.raters import Believed, compare
from tad.methods.pser.rows import RowOdds, RowsConfig
from tad.methods.roles import Labels, Round
from tad.options import group, option
from tad.ranges import Integer
from tad.stages import Artifact, StageConfig


class CrossFittingConfig(StageConfig):
    """How boundaries are set by what models of the other folds say of rows, where that is to be believed."""

    rounds: int = option(
        3,
        "how often models learn from the labels and boundaries are set anew",
        ge=1,
        le=20,
        tune=Integer(1, 6),
        why="in the first, the models still learn from the seeds",
    )
    rows: RowsConfig = group(RowsConfig())
    boundaries: BoundariesConfig = group(BoundariesConfig())


def cross_fitted(round: Round, config: CrossFittingConfig, seeds: Artifact, first: Artifact) -> Labels:
    """Seeds with boundaries set anew (`set_anew`); as they are, where rows are not to be believed (`raters.py`)."""
    labels = set_anew(round, config, seeds, first)
    odds = round.training.map(RowOdds(config.rows), {"taught": first})
    alone = Boundaries(BoundariesConfig(vote=0.0))
    rows = round.training.map(alone, {"labels": first, "first": first, "odds": odds})
    raters = {"first": first, "rows": rows}
    found = round.map(Believed(), {"seeds": seeds, "refined": labels} | raters)
    return Labels(found, note=lambda: compare(raters, round.data.classes).sentence())


def set_anew(round: Round, config: CrossFittingConfig, seeds: Artifact, first: Artifact) -> Artifact:
    """Segments: seeds with boundaries by rows and by their own vote, believed or not.

    Args:
        round: whose videos the labels are of.
        config: of the whole.
        seeds: one label for every point of these videos.
        first: the same of the training videos.
    """
    training, labels, taught = round.training, seeds, first
    judge, stage = RowOdds(config.rows), Boundaries(config.boundaries)
    for _ in range(config.rounds):
        known = {"first": first, "odds": training.map(judge, {"taught": taught})}
        own = {"first": seeds, "odds": round.map(judge, {"taught": taught})}
        # Usual lengths are those that the rows show: with them already counted, lengths would stay where they are.
        usual = training.map(stage, {"labels": taught} | known)
        labels = round.map(stage, {"labels": labels, "usual": usual} | own)
        taught = training.map(stage, {"labels": taught, "usual": usual} | known)
    return labels
