"""What BMN is taught: the bins of a window, and targets of boundaries and proposals on them.

Source: BMN (ICCV 2019) section 3.3 and its released code.
A bin is one input row of the network, and bin k covers the edges [k, k + 1). Legend: T bins, D durations, N labels.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

import numpy as np
import torch

from tad.methods.bmn.sampling import Cells
from tad.methods.common.windows import refine
from tad.ops.iou import tiou
from tad.ops.roi import roi_align

REACH = 1.5
"""Bins on either side of a boundary that belong to it."""

Fit = Literal["resize", "windows"]


class Window(NamedTuple):
    """Where the T bins of a window lie: edge = position * scale + shift, positions being those of the snippet grid."""

    scale: float
    """Bins for each snippet."""
    shift: float
    bins: int
    """Bins that the video fills; the rest is padding."""
    start: int | None
    """First row among the refined ones; None: the whole video, resized."""

    def to_bins(self, positions: np.ndarray) -> np.ndarray:
        return positions * self.scale + self.shift

    def from_bins(self, edges: np.ndarray) -> np.ndarray:
        return (edges - self.shift) / self.scale


def windows(snippets: int, length: int, fit: Fit, upsample: int) -> list[Window]:
    """The windows that a video is seen in.

    Args:
        snippets: rows of the video's features.
        length: bins T of a window.
        fit: "resize": the whole video in one window; "windows": as many as it needs, each beginning half a window
            after the last one, the last one with the end of the video. (The published splitter may leave the end out.)
        upsample: rows for each snippet in windows.
    """
    if fit == "resize":
        return [Window(length / snippets, length / (2 * snippets), length, None)]
    rows = (snippets - 1) * upsample + 1
    last = max(0, rows - length)
    starts = [*range(0, last, max(1, length // 2)), last]
    return [Window(float(upsample), 0.5 - start, min(length, rows), start) for start in starts]


def read_window(features: np.ndarray, window: Window, length: int) -> np.ndarray:
    """The rows [T, C] float32 of a window, zeros where the video has ended.

    Args:
        features: [snippets, C] of the whole video.
        window: one of `windows`.
        length: bins T.
    """
    if window.start is None:
        table = torch.from_numpy(np.array(features, dtype=np.float32))
        whole = torch.tensor([[-0.5, len(features) - 0.5]], dtype=torch.float64)
        return roi_align(table, whole, length)[0].T.contiguous().numpy()
    factor = round(window.scale)
    first, last = window.start // factor, (window.start + window.bins - 1) // factor + 1
    fine = refine(features[first : last + 1], factor)[window.start - first * factor :]
    rows = np.zeros((length, features.shape[1]), dtype=np.float32)
    rows[: window.bins] = fine[: window.bins]
    return rows


def windows_of(snippets: int, settings: Mapping[str, Any]) -> list[Window]:
    """The windows of a video of so many rows, by a model's settings."""
    return windows(snippets, settings["length"], settings["fit"], settings["upsample"])


def window_of(snippets: int, number: int, settings: Mapping[str, Any]) -> Window:
    """One of them; the last one if the video has fewer rows than its duration lets expect."""
    found = windows_of(snippets, settings)
    return found[min(number, len(found) - 1)]


def held(spans: np.ndarray, bins: int, share: float) -> tuple[np.ndarray, np.ndarray]:
    """The labels that a window holds, cut to it.

    Args:
        spans: [N, 2] edges.
        bins: of the window.
        share: a label with a smaller part of its length inside is left out.

    Returns:
        [K, 2] edges and the rows [K].
    """
    inside = np.clip(spans, 0.0, bins)
    length = inside[:, 1] - inside[:, 0]
    rows = np.flatnonzero((length > 0) & (length >= share * (spans[:, 1] - spans[:, 0])))
    return inside[rows], rows


def boundary_targets(places: np.ndarray, length: int) -> np.ndarray:
    """[T] float32: the largest share of each bin that lies within `REACH` of one of the boundaries `places` [N]."""
    bins = np.arange(length)[:, None]
    share = np.minimum(bins + 1, places + REACH) - np.maximum(bins, places - REACH)
    return share.clip(0, 1).max(1, initial=0.0).astype(np.float32)


def proposal_targets(cells: Cells, spans: np.ndarray) -> np.ndarray:
    """[K] float32: tIoU of each cell with its best-overlapping label.

    Args:
        cells: of the grid.
        spans: [N, 2] labels, in edges.
    """
    if not len(spans):
        return np.zeros(len(cells.start), dtype=np.float32)
    overlap: np.ndarray = tiou(cells.spans, spans).max(1)
    return overlap.astype(np.float32)


def positives(cells: Cells, spans: np.ndarray, overlap: np.ndarray, threshold: float, best: bool) -> np.ndarray:
    """[K] bool: cells that are proposals.

    Args:
        cells: of the grid.
        spans: [N, 2] labels, in edges.
        overlap: [K] from `proposal_targets`.
        threshold: tIoU above which a cell is positive. Short labels between the bins have no such cell.
        best: each label's best cell is positive too, if its tIoU is above 1/2.
    """
    positive = overlap > threshold
    if best and len(spans):
        each = tiou(spans, cells.spans)
        cell = each.argmax(1)
        positive[cell[each[np.arange(len(spans)), cell] > 0.5]] = True
    return positive
