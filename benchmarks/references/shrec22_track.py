"""The measures of the SHREC 2022 track on online gestures, and its systems' detections; frames at 20 a second.

Emporio et al., "SHREC 2022 track on online detection of heterogeneous gestures", Computers & Graphics 107 (2022). The
length of a gesture is end - start in frames, as the published files have them. A detection is correct if it meets a
gesture of its class that is not found yet, is at most twice as long and covers at least half of it. One that meets such
a gesture and is short enough, but covers too little, counts neither way; every other one is false, a second detection
of the same gesture, too.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from tad.data.segments import Segments

FPS = 20


class Gesture(NamedTuple):
    """One gesture or detection: class, first and last frame."""

    label: str
    start: float
    end: float

    def shared(self, other: Gesture) -> float:
        """Frames in both; 0 or less where they do not meet."""
        return min(self.end, other.end) - max(self.start, other.start)


Sequences = Mapping[str, Sequence[Gesture]]
"""By video id, in the order in which they are judged."""


class System(NamedTuple):
    """What a system reaches on the test part, class means."""

    detection_rate: float
    false_positives: float
    jaccard: float
    f1: tuple[float, float, float]
    """At tIoU .3, .5, .7."""


PUBLISHED = {
    "Causal TCN": System(0.800, 0.255, 0.685, (0.793, 0.759, 0.578)),
    "TN-FSM+JD": System(0.771, 0.182, 0.658, (0.815, 0.752, 0.511)),
    "TN-FSM+JD+SC": System(0.745, 0.321, 0.574, (0.755, 0.695, 0.466)),
    "2ST-GCN 5F": System(0.738, 0.104, 0.672, (0.771, 0.476, 0.138)),
    "TN-FSM": System(0.727, 0.267, 0.585, (0.746, 0.684, 0.440)),
    "Stronger": System(0.719, 0.330, 0.591, (0.809, 0.676, 0.315)),
    "Stronger+EN": System(0.703, 0.340, 0.564, (0.792, 0.653, 0.282)),
    "2ST-GCN 1F": System(0.684, 0.186, 0.582, (0.701, 0.431, 0.119)),
}
"""The track's fully supervised online systems; F1 is not in the paper but computed from the same files."""
TIOUS = (0.3, 0.5, 0.7)


def read_sequences(path: Path) -> dict[str, list[Gesture]]:
    """A file of the track: `number;LABEL;start;end;...` a line, in systems' files with a third frame, of the decision.

    Keys are video ids as in the dataset ("test_001").
    """
    found = {}
    for line in filter(None, map(str.strip, path.read_text(encoding="ascii").splitlines())):
        number, *fields = filter(None, line.split(";"))
        starts = [i for i, field in enumerate(fields) if not field.lstrip("-").isdigit()]
        found[f"test_{int(number):03d}"] = [Gesture(fields[i], int(fields[i + 1]), int(fields[i + 2])) for i in starts]
    return found


def sequences_of(segments: Segments, videos: Sequence[str]) -> dict[str, list[Gesture]]:
    """Segments in seconds as gestures, by start: one of the frames [s, e] is [s, e + 1) / 20 s."""
    found: dict[str, list[Gesture]] = {video: [] for video in videos}
    for video, label, (start, end) in zip(segments.video_ids, segments.labels, segments.spans, strict=True):
        first = round(FPS * start)
        found[video].append(Gesture(label, first, max(round(FPS * end) - 1, first)))
    return {video: sorted(rows, key=lambda g: (g.start, g.end, g.label)) for video, rows in found.items()}


def measures(found: Sequences, truth: Sequences) -> System:
    """All measures of a system's detections against annotated sequences."""
    number = Counter(g.label for rows in truth.values() for g in rows)
    right: Counter[str] = Counter()
    false: Counter[str] = Counter()
    for video, gestures in truth.items():
        taken: set[int] = set()
        for detection in found.get(video, ()):
            short = [
                i
                for i, g in enumerate(gestures)
                if g.label == detection.label
                and i not in taken
                and detection.shared(g) > 0
                and detection.end - detection.start <= 2 * (g.end - g.start)
            ]
            covered = [i for i in short if 2 * detection.shared(gestures[i]) >= gestures[i].end - gestures[i].start]
            taken.update(covered[:1])
            right[detection.label] += bool(covered)
            false[detection.label] += not short
    counts = np.array([(right[c], false[c], n) for c, n in sorted(number.items())], dtype=float)
    hit, wrong, total = counts.T
    of_class = (hit / total, wrong / total, hit / (total + wrong))
    scores = tuple(f1(found, truth, tiou) for tiou in TIOUS)
    return System(*(float(x.mean()) for x in of_class), scores)  # type: ignore[arg-type]


def f1(found: Sequences, truth: Sequences, tiou: float) -> float:
    """F1 over all detections; each takes the free gesture of its class with the largest tIoU, if that is enough."""
    hits = 0
    for video, gestures in truth.items():
        free = list(gestures)
        for detection in found.get(video, ()):
            mates = [g for g in free if g.label == detection.label and _tiou(detection, g) >= tiou]
            if mates:
                free.remove(max(mates, key=lambda g: _tiou(detection, g)))
                hits += 1
    both = sum(map(len, truth.values())) + sum(len(found.get(video, ())) for video in truth)
    return 2 * hits / both


def _tiou(a: Gesture, b: Gesture) -> float:
    shared = max(0.0, a.shared(b))
    either = a.end - a.start + b.end - b.start - shared
    return shared / either if either > 0 else 0.0
