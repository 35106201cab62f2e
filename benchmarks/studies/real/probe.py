"""The baseline: a linear classifier of feature rows; runs of rows above thresholds are its detections.

It says how far a method is from what the features give away by themselves. Full labels teach it every row of their
videos. Points teach it the row of the point and its two neighbours, and background in the row midway between two points
next to each other; other rows are left out.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F

from tad.data.dataset import Dataset, Role
from tad.data.segments import Segments
from tad.errors import DataError
from tad.ops.nms import classwise_nms

THRESHOLDS = np.arange(0.05, 1.0, 0.1)
STEPS = 60
"""Of L-BFGS."""
DECAY = 1e-3
OUTSIDE = 0.25
"""Of a run's length, on either side: what its score is compared with."""


def probe(data: Dataset, roles: tuple[Role, ...], seed: int) -> dict[Role, Segments]:
    """Detections of a probe that is trained on the training videos.

    Raises:
        DataError: the training videos have neither points nor full labels.
    """
    taught = [(np.asarray(data.features(v), dtype=np.float32), targets(data, v)) for v in data.videos("train")]
    rows = np.concatenate([x[y >= 0] for x, y in taught])
    labels = np.concatenate([y[y >= 0] for _, y in taught])
    if not len(rows):
        raise DataError(f"{data.root}: a probe needs points or full labels")
    mean, spread = rows.mean(axis=0), rows.std(axis=0) + 1e-6
    layer = trained(torch.from_numpy((rows - mean) / spread), torch.from_numpy(labels), len(data.classes) + 1, seed)
    found = {}
    for role in roles:
        parts = []
        for video in data.videos(role):
            x = (np.asarray(data.features(video), dtype=np.float32) - mean) / spread
            with torch.no_grad():
                scores = layer(torch.from_numpy(x)).softmax(dim=1).numpy()[:, :-1]
            parts.append(detections(data, video, scores))
        found[role] = Segments.concat(parts)
    return found


def targets(data: Dataset, video: str) -> np.ndarray:
    """[T] int64: each row's class, C for background, -1 for a row that nothing is said about."""
    length, background = len(data.features(video)), len(data.classes)
    if (full := data.full_labels(video)) is not None:
        return row_classes(data, video, full.spans, full.label)
    grid, of = data.grid(video, length), np.full(length, -1)
    points = data.points(video)
    rows = grid.row(points.time)
    of[(rows[1:] + rows[:-1]) // 2] = background
    for step in (-1, 1, 0):  # a point's own row last, so that no neighbour takes it
        of[np.clip(rows + step, 0, length - 1)] = points.label
    return of


def row_classes(data: Dataset, video: str, spans: np.ndarray, label: np.ndarray) -> np.ndarray:
    """[T] int64: the class of each row of a video, C outside the actions `spans` [N, 2] in seconds, of classes [N]."""
    length = len(data.features(video))
    of = np.full(length, len(data.classes))
    edges = np.round(data.grid(video, length).to_edge(spans)).astype(int).reshape(-1, 2)
    for (first, last), c in zip(edges, label, strict=True):
        of[max(first, 0) : last] = c
    return of


def trained(rows: torch.Tensor, labels: torch.Tensor, classes: int, seed: int) -> torch.nn.Linear:
    """A linear layer by cross entropy, all rows at once."""
    torch.manual_seed(seed)
    layer = torch.nn.Linear(rows.shape[1], classes)
    optimiser = torch.optim.LBFGS(layer.parameters(), max_iter=STEPS, line_search_fn="strong_wolfe")

    def loss() -> torch.Tensor:
        optimiser.zero_grad()
        value = F.cross_entropy(layer(rows), labels) + DECAY * layer.weight.square().sum()
        value.backward()
        return value

    optimiser.step(loss)
    return layer


def detections(data: Dataset, video: str, scores: np.ndarray) -> Segments:
    """Runs of each class's scores [T, C] above each threshold; their score is the mean inside minus that beside it."""
    spans: list[tuple[int, int]] = []
    score: list[float] = []
    label: list[int] = []
    for c, curve in enumerate(scores.T):
        sums = np.append(0.0, np.cumsum(curve))
        edges = {
            (int(a), int(b))
            for threshold in THRESHOLDS
            for a, b in np.flatnonzero(np.diff(np.pad(curve >= threshold, 1).astype(int))).reshape(-1, 2)
        }
        for a, b in sorted(edges):
            margin = max(1, round(OUTSIDE * (b - a)))
            low, high = max(a - margin, 0), min(b + margin, len(curve))
            beside = (sums[high] - sums[b] + sums[a] - sums[low]) / max(high - b + a - low, 1)
            spans.append((a, b))
            score.append((sums[b] - sums[a]) / (b - a) - beside)
            label.append(c)
    if not spans:
        return Segments.empty()
    grid = data.grid(video, len(scores))
    seconds = grid.from_edge(np.array(spans, dtype=float)).clip(0, data.duration(video))
    span, found, of, _ = classwise_nms(seconds, np.array(score), np.array(label))
    names = [data.classes[int(c)] for c in of]
    return Segments.of(video, span[:, 0], span[:, 1], names, score=found, source="probe")
