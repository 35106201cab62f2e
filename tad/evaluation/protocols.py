"""Evaluation protocols: what is done to ground truth and detections before they are matched.

The matching itself (tad.evaluation.evaluator) is the same in all of them but the last. They differ in what they leave
out:

| protocol | ground truth left out | detections left out | tIoU of |
|---|---|---|---|
| `anet` | - | - | seconds |
| `hrpro` | - | those that meet an ambiguous interval, in whole seconds | seconds |
| `actionformer` | shorter than 1 ms; copies (same class, both ends within 1 ms) | - | seconds |
| `opentad` | length <= 0; copies as above | - | seconds |
| `gaufuse` | - | those that meet an ambiguous interval, in whole snippets | whole snippets (25 fps, 16 frames) |
| `thumos14` | - | those that meet an ambiguous interval and take nothing | seconds |

`thumos14` is the official toolkit of THUMOS 2014 (TH14evalDet): in each video, each true segment of a class takes, in
the order of the file, the detection of that class with the largest tIoU among those not yet taken, if that is above
the threshold, whatever its score; of equal ones that with the best score. AP is the sum of the precisions at the true
positives, by the number of true segments, without interpolation. Ends given in the wrong order are swapped.

In all of them: segments that reach beyond their video stay as they are; detections of a class that the ground truth
does not have are left out; detections in a video without ground truth of their class are false positives.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from tad.data.grid import SnippetGrid
from tad.errors import ConfigError

TOLERANCE = 1e-3
"""Seconds within which two ends count as the same, and below which ActionFormer calls a segment empty."""


@dataclass(frozen=True)
class Protocol:
    """How one published evaluation treats its input.

    Attributes:
        name: as on the command line.
        empty: ground truth left out: none, of length <= 0, or shorter than TOLERANCE.
        copies: whether copies of a ground-truth segment are kept; if not, the first in time stays.
        ambiguous: unit in which a detection meets an ambiguous interval and is left out; None keeps all.
            "time": they share time; then only those that take nothing are left out.
        grid: rounds all segments to its snippets before the tIoU; None compares seconds.
        takes: what takes the other: a detection, by score, a true segment; or a true segment, in order, a detection.
        envelope: whether AP is the area under the precision envelope, else the mean precision at true positives.
    """

    name: str
    empty: Literal["keep", "zero", "short"]
    copies: bool
    ambiguous: Literal["seconds", "snippets", "time"] | None = None
    grid: SnippetGrid | None = None
    takes: Literal["detection", "truth"] = "detection"
    envelope: bool = True

    @property
    def takes_ambiguous(self) -> bool:
        """Whether a detection that meets an ambiguous interval may be a true positive."""
        return self.ambiguous == "time"

    def read(self, span: np.ndarray) -> np.ndarray:
        """[N, 2] seconds as the published code reads them."""
        return np.sort(span, axis=1) if self.takes == "truth" else span

    def kept_ground_truth(self, video: np.ndarray, label: np.ndarray, span: np.ndarray) -> np.ndarray:
        """[G] bool: the ground truth that counts. video, label [G] int codes; span [G, 2] seconds."""
        length = span[:, 1] - span[:, 0]
        keep = np.ones(len(span), dtype=bool)
        if self.empty == "zero":
            keep = length > 0
        elif self.empty == "short":
            keep = length >= TOLERANCE
        if not self.copies:
            rows = np.flatnonzero(keep)
            keep[rows[is_copy(video[rows], label[rows], span[rows])]] = False
        return keep

    def clear_of_ambiguous(
        self, video: np.ndarray, span: np.ndarray, ambiguous_video: np.ndarray, ambiguous_span: np.ndarray
    ) -> np.ndarray:
        """[N] bool: detections that meet no ambiguous interval of their video; any class.

        Published rule (HR-Pro and the RSKP family): a detection covers the whole units [int(start), int(end)), an
        ambiguous interval [round(start), round(end)); they meet if they share a unit. THUMOS toolkit: they share time.

        Args:
            video: [N] int codes of the detections' videos, span: [N, 2] seconds.
            ambiguous_video: [A] int codes, ambiguous_span: [A, 2] seconds.
        """
        clear = np.ones(len(span), dtype=bool)
        if self.ambiguous is None or not len(ambiguous_span):
            return clear
        grid = self.grid if self.ambiguous == "snippets" else None
        time = self.ambiguous == "time"
        low, high = (span if time else whole_units(span, grid)).T
        for code in np.unique(ambiguous_video):
            rows = np.flatnonzero(video == code)
            intervals = ambiguous_span[ambiguous_video == code]
            left, right = (intervals if time else nearest_units(intervals, grid)).T
            shared = np.minimum(high[rows, None], right) - np.maximum(low[rows, None], left)
            clear[rows] = ~(shared > 0).any(axis=1)
        return clear

    def comparable(self, detection: np.ndarray, ground_truth: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Both spans ([N, 2] and [G, 2] seconds) in the coordinates whose tIoU counts."""
        if self.grid is None:
            return detection, ground_truth
        return whole_units(detection, self.grid), nearest_units(ground_truth, self.grid)


def whole_units(span: np.ndarray, grid: SnippetGrid | None) -> np.ndarray:
    """[N, 2] seconds, truncated to whole seconds or (with a grid) snippets."""
    if grid is None:
        return np.trunc(span)
    # The nudge keeps an end that was a whole snippet before it became seconds in that snippet.
    return np.trunc(grid.to_edge(span) + 1e-6)


def nearest_units(span: np.ndarray, grid: SnippetGrid | None) -> np.ndarray:
    """[N, 2] seconds, rounded to whole seconds or (with a grid) snippets."""
    return np.round(span if grid is None else grid.to_edge(span))


def is_copy(video: np.ndarray, label: np.ndarray, span: np.ndarray) -> np.ndarray:
    """[G] bool: rows whose two ends are within TOLERANCE of an earlier kept row of the same video and class.

    "Earlier" is by start, then end, so the answer does not depend on the order of the file.
    """
    order = np.lexsort((span[:, 1], span[:, 0], label, video))
    video, label, span = video[order], label[order], span[order]
    joined = (video[1:] == video[:-1]) & (label[1:] == label[:-1]) & (np.diff(span[:, 0]) <= TOLERANCE)
    first = np.flatnonzero(np.append(True, ~joined)) if len(order) else np.zeros(0, dtype=np.int64)
    copy = np.zeros(len(order), dtype=bool)
    for low, high in zip(first, np.append(first[1:], len(order)), strict=True):
        kept = [int(low)]
        for row in range(int(low) + 1, int(high)):
            copy[row] = (np.abs(span[kept] - span[row]) <= TOLERANCE).all(axis=1).any()
            if not copy[row]:
                kept.append(row)
    result = np.zeros(len(order), dtype=bool)
    result[order] = copy
    return result


PROTOCOLS = {
    p.name: p
    for p in (
        Protocol("anet", empty="keep", copies=True),
        Protocol("hrpro", empty="keep", copies=True, ambiguous="seconds"),
        Protocol("actionformer", empty="short", copies=False),
        Protocol("opentad", empty="zero", copies=False),
        Protocol(
            "gaufuse",
            empty="keep",
            copies=True,
            ambiguous="snippets",
            grid=SnippetGrid(fps=25, stride=16, window=16, length=1),
        ),
        Protocol("thumos14", empty="keep", copies=True, ambiguous="time", takes="truth", envelope=False),
    )
}


def protocol_named(name: str) -> Protocol:
    """One of PROTOCOLS.

    Raises:
        ConfigError: there is none of this name.
    """
    if name not in PROTOCOLS:
        raise ConfigError(f"unknown protocol {name!r}; choose one of {', '.join(PROTOCOLS)}")
    return PROTOCOLS[name]
