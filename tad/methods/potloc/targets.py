"""What the rows of POTLoc's pyramid should say: sampled pseudo-labels and mined background.

Source: POTLoc (Vahdani and Tian), pseudo-label sampling and background modeling, in the form its code runs. Times are
positions of the rows the network sees; row i of level l lies at i * 2 ** l. The array of all levels is as long as the
finest level; row i of level l is real if i * 2 ** l < T.

Shapes: L levels, T rows of a window, N pseudo-labels, C classes, B windows.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from torch import Tensor

from tad.methods.actionformer.targets import shortest
from tad.methods.common.windows import Labels
from tad.methods.snippet.mining import mine

SHARE = 0.7
"""A window should hold more than this share of its video's points."""


def sample(labels: Labels, rows: int, levels: int, classes: int, radius: float | None, rounded: bool) -> Tensor:
    """Rows of each level that answer for a pseudo-label: close to its point and inside it, borders left out.

    A pseudo-label (t, s, e) claims the rows x of level l with max(t - r 2^l, s) < x < min(t + r 2^l, e); of several
    claims the shortest pseudo-label wins. Besides, the annotated row is positive on level 0 whatever its pseudo-label:
    it is the one row that is known.

    Args:
        labels: of the window, in its positions.
        rows: T, of the window.
        levels: L.
        classes: C.
        radius: r in strides of the level; None: the whole pseudo-label.
        rounded: the published rule: points and ends are rounded to whole snippets (halves to even ones), where the
            ends may fall on the annotated row and leave a pseudo-label without a positive, and the annotated row has no
            rights of its own. The published clock puts row i at the beginning of its snippet, not at its centre.

    Returns:
        [L, T, C] bool; several classes of a row where equally short pseudo-labels meet.
    """
    point, (start, end) = labels.points, labels.spans.T
    if rounded:
        # Edges, not positions: half a snippet more.
        point = np.rint(point + 0.5)
        start, end = (np.clip(np.rint(x + 0.5), 0, rows - 1) for x in (start, end))
    reach = (np.inf if radius is None else radius) * 2.0 ** np.arange(levels)[:, None, None]
    position = np.arange(rows)[:, None] * 2.0 ** np.arange(levels)[:, None, None]  # [L, T, 1]
    real = position < rows
    inside = (position > start) & (position < end) & real
    claimed = torch.from_numpy(inside & (np.abs(position - point) < reach))
    target = torch.zeros(levels, rows, classes, dtype=torch.bool)
    if len(point):
        level, row, label = shortest(claimed, torch.from_numpy(end - start)).nonzero(as_tuple=True)
        target[level, row, torch.from_numpy(labels.classes)[label]] = True
    if not rounded:
        target[0, annotated(point, rows), labels.classes] = True
    return target


def annotated(points: np.ndarray, rows: int) -> np.ndarray:
    """[N] int64 the row of `rows` whose cell holds each point [N]; ends of the video count to the last row."""
    return np.clip(np.floor(points + 0.5), 0, rows - 1).astype(np.int64)


def background_seeds(
    background: Tensor, targets: Tensor, mask: Tensor, threshold: float, rule: Literal["gaps", "published"]
) -> Tensor:
    """[B, L, T] bool: rows that are confidently background, mined between the positives of each level on its own.

    Args:
        background: [B, L, T] scores; not differentiated.
        targets: [B, L, T] bool, rows with a positive.
        mask: [B, L, T] bool, real rows.
        threshold: smallest score of a hit.
        rule: "published" mines the outer gaps as POTLoc's code (see `mine`).
    """
    rows, positive, real = (x.flatten(0, 1) for x in (background, targets, mask))
    outer: Literal["reach", "hits"] = "hits" if rule == "published" else "reach"
    seeds = mine(rows, positive[..., None], real, background_threshold=threshold, outer=outer).background
    return seeds.view_as(mask)


def window(length: int, points: np.ndarray, longest: int, rng: np.random.Generator) -> tuple[int, int]:
    """First row and size of a random training window.

    `longest` rows of a longer video, 90 to 100 % of another. Drawn from the windows with more than 70 % of the points;
    where there is none from those with a point, and without points from all. (Published: up to 500 draws until one
    has 70 %, else the last one, whatever it holds.)

    Args:
        length: rows of the video.
        points: [N] rows with a point, ascending.
        longest: most rows of a window.
        rng: of the item.
    """
    if length > longest:
        size = longest
    else:
        size = int(rng.integers(max(round(0.9 * length), 1), length, endpoint=True))
    starts = np.arange(length - size + 1)
    held = np.searchsorted(points, starts + size) - np.searchsorted(points, starts)
    for least in (SHARE * len(points), 0.0):
        if (held > least).any():
            starts = starts[held > least]
            break
    return int(rng.choice(starts)), size
