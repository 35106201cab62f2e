"""The parts of labeler `points`, taken away one at a time, and its constants, changed one at a time."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from benchmarks.references.point_protocols import Protocol
from tad.methods.points.labeler import PointsLabeler
from tad.methods.points.model import Around, Grid, PointModel, Prior

FACTOR = 1.5
"""By which constants are changed."""


class NoLag(PointModel):
    def find_lag(self) -> float:
        return 0.0


class AnyPosition(PointModel):
    def learn(self, grid: Grid, *rest, **more):  # type: ignore[no-untyped-def]
        prior, *others = super().learn(grid, *rest, **more)
        flat = np.full(prior.position.shape, 1 / len(grid.position))
        return prior._replace(position=flat, middle=0.5), *others


class OnePosition(PointModel):
    def learn(self, *rest, shared=True):  # type: ignore[no-untyped-def]
        return super().learn(*rest, shared=True)


class AnyLength(PointModel):
    def learn(self, *rest, **more):  # type: ignore[no-untyped-def]
        prior, *others = super().learn(*rest, **more)
        return prior._replace(length=np.full(prior.length.shape, 1 / prior.length.shape[1])), *others


class Halfway(PointModel):
    def around(self, middle: float, lag: float) -> Around:
        return super().around(0.5, lag)


class Containing(PointModel):
    def around(self, middle: float, lag: float) -> Around:
        found = super().around(middle, lag)
        weight = np.where((found.spans[:, 0] <= 0) & (found.spans[:, 1] >= 0), found.weight, 0.0)
        return found._replace(weight=weight)


class Likeliest(PointModel):
    def choose(self, grid: Grid, evidence: np.ndarray, prior: Prior):  # type: ignore[no-untyped-def]
        posterior = evidence * prior.length[self.group][:, :, None] * prior.position
        best = posterior.reshape(len(posterior), -1).argmax(axis=1)
        length, position = np.divmod(best, len(grid.position))
        return np.exp(grid.log_length[length]), grid.position[position], np.ones(len(best))


PARTS: Mapping[str, tuple[type[PointModel], PointsLabeler]] = {
    "all parts": (PointModel, PointsLabeler()),
    "no lag: the proposals' clock is right": (NoLag, PointsLabeler()),
    "points lie anywhere (positions not learned)": (AnyPosition, PointsLabeler()),
    "positions do not depend on the length": (OnePosition, PointsLabeler()),
    "actions have any length (lengths not learned)": (AnyLength, PointsLabeler()),
    "lengths of proposals without bias (compression 1)": (PointModel, PointsLabeler(compression=1.0)),
    "only proposals that contain the point": (Containing, PointsLabeler()),
    "cuts halfway between neighbours": (Halfway, PointsLabeler()),
    "scores of proposals do not count (sharpness 0)": (PointModel, PointsLabeler(sharpness=0.0)),
    "the likeliest segment, not the largest expected tIoU": (Likeliest, PointsLabeler()),
}
CONSTANTS: Mapping[str, tuple[type[PointModel], PointsLabeler]] = {
    f"{name} {value:.3g}": (PointModel, PointsLabeler(**{name: value}))
    for name, default in PointsLabeler().model_dump(exclude={"method"}).items()
    for value in (default / FACTOR, default * FACTOR)
}


def spans(of: Protocol, model: type[PointModel], constants: PointsLabeler) -> np.ndarray:
    """[G, 2] seconds: the labels of a model with a part missing."""
    labels = model(of.points, of.grouped, len(of.data.classes), constants).label()
    return np.clip(labels.spans, 0.0, of.points.duration[:, None])
