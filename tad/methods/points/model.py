"""How segments, points and proposals hang together, learned from points and proposals alone (for labeler `points`).

Legend: G points of all videos, ascending in group and time; V groups (one class in one video); P pairs of a point and a
proposal of its group; A lengths and B positions of the grid of segments that are weighed for every point.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from tad import bounds
from tad.methods.common.seeds import SHORTEST, neighbour_times
from tad.methods.potloc.labeler import Grouped, GroupedPoints
from tad.ops.nms import compiled
from tad.options import option
from tad.ranges import Float
from tad.stages import StageConfig

WIDEST = 16.0
"""Segments are weighed from a sixteenth of the typical length to sixteen times it."""
CUTS, ROUNDS = 3, 5
"""How often the cuts between neighbours are moved, and the rounds of estimation after each."""
VIDEO, CLASS = 3.0, 0.25
"""Mean length of a group: its class's counts as this many points; of a class: that of all as this many videos."""
SMOOTH, POOLED = 0.15, 20.0
"""Positions for a length: those of points of about this log length, and those of all points as this many."""
OUTLIER = 1e-4
"""Evidence for any segment: the proposals may all be wrong."""
FAR = -2 * np.log(OUTLIER)
"""Squared distance in standard deviations beyond which a proposal says less than that."""
IMPOSSIBLE = 1e-6
"""Factor for segments that reach a neighbour's point or stick far out of the video."""
LAG = 0.05
"""The lag is of the order of this share of the typical length."""


class Constants(StageConfig):
    """What is not learned."""

    sharpness: float = option(
        6.0,
        "how much a proposal's score counts: weights are exp of it",
        ge=0,
        le=bounds.SPREAD,
        tune=Float(0.5, 20.0, log=True),
        why="6 on THUMOS14; low: all proposals vote alike, high: the best one decides",
    )
    length_noise: bounds.Spread = option(
        0.3,
        "spread of a proposal's log length about the segment's",
        tune=Float(0.1, 1.0, log=True),
        why=".3 on THUMOS14; spread of log lengths, so .1 to 1 is 10 % to a factor of 2.7",
    )
    centre_noise: bounds.Spread = option(
        0.12,
        "spread of its centre, in lengths",
        tune=Float(0.03, 0.5, log=True),
        why=".12 on THUMOS14; spread of centres in lengths; from .5 on proposals do not say where",
    )
    compression: bounds.Spread = option(
        0.8,
        "how far proposals' log lengths follow those of segments; 1: without bias",
        tune=Float(0.5, 1.2),
        why=".8 on THUMOS14; below 1: proposals are too long where actions are short",
    )
    spread: float = option(
        0.6,
        "spread of the log lengths of one class in one video",
        ge=0.05,
        le=bounds.SPREAD,
        tune=Float(0.1, 1.5, log=True),
        why=".6 on THUMOS14; small draws lengths to those of the class in the video",
    )


class Grid(NamedTuple):
    """The segments that are weighed: by log length, and by the place of the point between start (0) and end (1)."""

    log_length: np.ndarray
    """[A] of seconds."""
    position: np.ndarray
    """[B]."""

    @classmethod
    def around(cls, typical: float, step: float, positions: int) -> Grid:
        """Lengths around the typical one (seconds), `step` apart (log)."""
        steps = round(np.log(WIDEST) / step)
        log_length = np.log(typical) + step * np.arange(-steps, steps + 1)
        return cls(log_length, (np.arange(positions) + 0.5) / positions)

    def overlaps(self) -> np.ndarray:
        """[A * B, A * B] float32 tIoU of any two segments around the same point."""
        length = np.exp(self.log_length)[:, None]
        start = (-length * self.position).ravel()
        end = (length * (1 - self.position)).ravel()
        shared = np.minimum(end[:, None], end) - np.maximum(start[:, None], start)
        both = (end - start)[:, None] + (end - start)
        return (shared / (both - shared)).astype(np.float32)


class Around(NamedTuple):
    """The points' surroundings: where each may reach, and the proposals there."""

    territory: np.ndarray
    """[G, 2] seconds: up to the cuts towards the neighbours of the group."""
    room: np.ndarray
    """[G, 4] seconds to the neighbours' points (before, after) and to the ends of the video."""
    bounds: np.ndarray
    """[G + 1] the pairs of each point."""
    spans: np.ndarray
    """[P, 2] seconds relative to the point: proposals, cut to the territory."""
    weight: np.ndarray
    """[P] sums to 1 over the pairs of a point."""


class Prior(NamedTuple):
    """What is learned."""

    length: np.ndarray
    """[V, A] probability of each length in a group."""
    position: np.ndarray
    """[A, B] probability of each position, given the length."""
    mean: float
    """Mean log length of all."""
    middle: float
    """Mean position."""


class Estimates(NamedTuple):
    """The segment of every point, and what was learned on the way."""

    spans: np.ndarray
    """[G, 2] seconds."""
    scores: np.ndarray
    """[G] expected tIoU with the true segment."""
    lag: float
    """Seconds by which proposals run ahead of the points."""
    positions: np.ndarray
    """[B] share of points at each position, from start to end."""


class PointModel:
    """The model of tad.methods.points.labeler over all videos. Deterministic.

    Args:
        points: distinct, ascending in group and time.
        proposals: of the same groups (video * classes + class).
        classes: number of classes.
        constants: what is not learned.
    """

    def __init__(self, points: GroupedPoints, proposals: Grouped, classes: int, constants: Constants) -> None:
        self.points, self.constants = points, constants
        self.before, self.after = neighbour_times(points.time, points.group, same_class=True)
        groups, self.group = np.unique(points.group, return_inverse=True)
        self.group_class = groups % classes
        order = np.argsort(proposals.group, kind="stable")
        self.proposals = proposals.rows(order)
        first = np.searchsorted(self.proposals.group, points.group, side="left")
        count = np.searchsorted(self.proposals.group, points.group, side="right") - first
        point = np.repeat(np.arange(len(count)), count)
        proposal = np.arange(count.sum()) + np.repeat(first - (np.cumsum(count) - count), count)
        start, end = self.proposals.spans[proposal].T
        near = (start < self.after[point]) & (end > self.before[point])
        self.point, self.proposal = point[near], proposal[near]
        self.typical = self._typical()

    def label(self) -> Estimates:
        """One segment for every point, in their order."""
        lag = self.find_lag()
        grid = Grid.around(self.typical, 0.1, 20)
        prior = self.start(grid)
        for _ in range(CUTS):
            around = self.around(prior.middle, lag)
            evidence = self.evidence(grid, around, prior)
            for _ in range(ROUNDS):
                prior, counts, _ = self.learn(grid, around, evidence, prior)
        length, position, scores = self.choose(grid, evidence, prior)
        start = self.points.time - position * length
        spans = np.clip(np.stack([start, start + length], axis=1), around.territory[:, :1], around.territory[:, 1:])
        return Estimates(spans, scores, lag, counts.sum(axis=0) / max(counts.sum(), 1.0))

    def _typical(self) -> float:
        """Seconds: median length of the proposals around the points; without any, of half the points' territories."""
        around = self.around(0.5, 0.0)
        holds = (around.spans[:, 0] <= 0) & (around.spans[:, 1] >= 0)
        room = np.clip(around.territory, 0.0, self.points.duration[:, None])
        length = (around.spans[holds] if holds.any() else room / 2) @ np.array([-1.0, 1.0])
        return max(float(np.median(length)), 1e-2) if len(length) else 1.0

    def around(self, middle: float, lag: float) -> Around:
        """The surroundings for points that lie, on average, at position `middle`; proposals are moved by the lag.

        Between two neighbours the cut lies where segments of equal length would meet.
        """
        time, row, proposal = self.points.time, self.point, self.proposal
        lower = np.where(np.isfinite(self.before), time - middle * (time - self.before), -np.inf)
        upper = np.where(np.isfinite(self.after), time + (1 - middle) * (self.after - time), np.inf)
        moved = self.proposals.spans + lag
        keys = self.points.group + 1j * time  # complex numbers sort by their real part, then by the imaginary one
        inside = np.searchsorted(keys, self.proposals.group + 1j * moved[:, 1], side="right")
        inside -= np.searchsorted(keys, self.proposals.group + 1j * moved[:, 0], side="left")

        start = np.maximum(moved[proposal, 0], np.maximum(lower[row], 0.0))
        end = np.minimum(moved[proposal, 1], np.minimum(upper[row], self.points.duration[row]))
        kept = end - start >= SHORTEST
        row, proposal = row[kept], proposal[kept]
        score, best = self.proposals.scores[proposal], np.full(len(time), -np.inf)
        np.maximum.at(best, row, score)
        weight = np.exp(self.constants.sharpness * (score - best[row])) / np.maximum(inside[proposal], 1)
        weight /= np.bincount(row, weight, len(time))[row]
        spans = np.stack([start[kept], end[kept]], axis=1) - time[row, None]
        room = np.stack([time - self.before, self.after - time, time, self.points.duration - time], axis=1)
        bounds = np.searchsorted(row, np.arange(len(time) + 1))
        return Around(np.stack([lower, upper], axis=1), room, bounds, spans, weight)

    def start(self, grid: Grid) -> Prior:
        """Nothing known: all lengths and positions alike."""
        lengths, positions = len(grid.log_length), len(grid.position)
        length = np.full((len(self.group_class), lengths), 1 / lengths)
        return Prior(length, np.full((lengths, positions), 1 / positions), float(np.log(self.typical)), 0.5)

    def evidence(self, grid: Grid, around: Around, prior: Prior) -> np.ndarray:
        """[G, A, B] float32: how well each segment explains the proposals around the point."""
        seen = prior.mean + self.constants.compression * (grid.log_length - prior.mean)
        log_length = np.log(around.spans[:, 1] - around.spans[:, 0])
        centre = around.spans.mean(axis=1)
        noise = (self.constants.length_noise, self.constants.centre_noise)
        return weigh(around.room, around.bounds, centre, log_length, around.weight, *grid, seen, *noise)

    def learn(
        self, grid: Grid, around: Around, evidence: np.ndarray, prior: Prior, shared: bool = False
    ) -> tuple[Prior, np.ndarray, float]:
        """A round of estimation: the prior given what it says about each point that has proposals.

        Returns:
            The new prior (with `shared`, positions do not depend on the length), the [A, B] expected counts of
            segments, and the log likelihood under the old prior.
        """
        informed = np.diff(around.bounds) > 0
        log_z, log_length, counts = expect(evidence, self.group, informed, *prior[:2], grid.log_length)
        number = np.bincount(self.group, informed, len(self.group_class))
        own = np.bincount(self.group, log_length * informed, len(self.group_class))
        trust = number / (number + VIDEO)
        of_groups = trust * own / np.maximum(number, 1)
        mean = float(of_groups.sum() / trust.sum()) if informed.any() else prior.mean
        classes = self.group_class.max(initial=0) + 1
        of_class = np.bincount(self.group_class, of_groups, classes) + CLASS * mean
        of_class /= np.bincount(self.group_class, trust, classes) + CLASS
        centre = (own + VIDEO * of_class[self.group_class]) / (number + VIDEO)
        length = np.exp(-0.5 * ((grid.log_length - centre[:, None]) / self.constants.spread) ** 2)

        pooled = counts.sum(axis=0) + 1 / len(grid.position)
        pooled /= pooled.sum()
        near = np.exp(-0.5 * ((grid.log_length[:, None] - grid.log_length) / SMOOTH) ** 2)
        position = near @ counts * (not shared) + POOLED * pooled
        normal = Prior(
            length / length.sum(axis=1, keepdims=True),
            position / position.sum(axis=1, keepdims=True),
            mean,
            float(pooled @ grid.position),
        )
        return normal, counts, float(log_z.sum())

    def find_lag(self) -> float:
        """Seconds that make the points likeliest once the proposals are moved by them.

        A lag shows in that the points of short segments lie off the points of long ones; on a coarse grid, with cuts
        halfway and one distribution of positions for all lengths, which could otherwise take its place.
        """
        grid = Grid.around(self.typical, 0.2, 10)
        unit = LAG * self.typical
        lags = unit * np.arange(-4, 5)
        values = np.zeros(len(lags))
        for i, lag in enumerate(lags):
            prior, around = self.start(grid), self.around(0.5, float(lag))
            evidence = self.evidence(grid, around, prior)
            for _ in range(ROUNDS):
                prior, _, likelihood = self.learn(grid, around, evidence, prior, shared=True)
            # Points of a group are far from independent: a group counts as one.
            values[i] = likelihood * len(self.group_class) / max(len(self.group), 1) - 0.5 * (lag / unit) ** 2
        best = int(values.argmax())
        if best in (0, len(lags) - 1):
            return float(lags[best])
        left, top, right = values[best - 1 : best + 2]  # the vertex of the parabola through the three
        return float(lags[best] + 0.5 * unit * (left - right) / (left - 2 * top + right))

    def choose(self, grid: Grid, evidence: np.ndarray, prior: Prior) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Length (seconds) and position of the segment with the largest expected tIoU, and that tIoU; [G] each."""
        overlaps = grid.overlaps()
        best, value = np.zeros(len(evidence), dtype=np.int64), np.zeros(len(evidence))
        for i in range(0, len(evidence), 512):
            block = slice(i, i + 512)
            posterior = evidence[block] * prior.length[self.group[block], :, None] * prior.position
            posterior /= posterior.sum(axis=(1, 2), keepdims=True)
            expected = posterior.reshape(len(posterior), -1).astype(np.float32) @ overlaps
            best[block], value[block] = expected.argmax(axis=1), np.minimum(expected.max(axis=1), 1.0)
        length, position = np.divmod(best, len(grid.position))
        return np.exp(grid.log_length[length]), grid.position[position], value


@compiled
def weigh(room, bounds, centre, log_length, weight, lengths, positions, seen, length_noise, centre_noise):  # type: ignore[no-untyped-def]
    """The evidence for the segments of the grid (see `PointModel.evidence`): mixtures over the points' proposals."""
    out = np.empty((len(room), len(lengths), len(positions)), dtype=np.float32)
    for g in range(len(room)):
        for a in range(len(lengths)):
            length = np.exp(lengths[a])
            out[g, a] = OUTLIER
            for p in range(bounds[g], bounds[g + 1]):
                z = ((log_length[p] - seen[a]) / length_noise) ** 2
                if z > FAR:
                    continue
                scale = 1 / (centre_noise * np.exp(0.5 * (seen[a] + log_length[p])))
                y, step = (centre[p] - (0.5 - positions[0]) * length) * scale, length * scale / len(positions)
                reach = np.sqrt(FAR - z)
                first = max(0, int(np.ceil((-reach - y) / step)))
                last = min(len(positions), int(np.floor((reach - y) / step)) + 1)
                y += first * step
                # A Gaussian at equal steps: each value is the last one times a factor, which shrinks by a factor, too.
                value, factor = weight[p] * np.exp(-0.5 * (z + y * y)), np.exp(-(y + 0.5 * step) * step)
                shrink = np.exp(-step * step)
                for b in range(first, last):
                    out[g, a, b] += value
                    value *= factor
                    factor *= shrink
            for b in range(len(positions)):
                before, after = positions[b] * length, (1 - positions[b]) * length
                reaches = before >= room[g, 0] or after >= room[g, 1]
                if reaches or before > room[g, 2] + length / 4 or after > room[g, 3] + length / 4:
                    out[g, a, b] = OUTLIER * IMPOSSIBLE
    return out


@compiled
def expect(evidence, group, informed, length, position, log_length):  # type: ignore[no-untyped-def]
    """Log likelihood [G], expected log length [G] and expected counts [A, B] under a prior."""
    log_z, mean = np.zeros(len(evidence)), np.zeros(len(evidence))
    counts, own = np.zeros(position.shape), np.empty(position.shape)
    for g in range(len(evidence)):
        if not informed[g]:
            continue
        total = 0.0
        for a in range(len(log_length)):
            for b in range(position.shape[1]):
                own[a, b] = evidence[g, a, b] * length[group[g], a] * position[a, b]
                total += own[a, b]
        log_z[g] = np.log(total)
        for a in range(len(log_length)):
            for b in range(position.shape[1]):
                share = own[a, b] / total
                counts[a, b] += share
                mean[g] += share * log_length[a]
    return log_z, mean, counts
