"""What is evaluated against: the videos of one subset, their raw ground truth and their ambiguous intervals."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from tad.data.dataset import ROLES, Dataset
from tad.data.detections import Detections
from tad.data.labels import unlike
from tad.data.segments import Segments
from tad.errors import DataError, few
from tad.evaluation.evaluator import DEFAULT_TIOUS, Evaluation, Judged, check_videos, evaluate, judge
from tad.evaluation.ground_truth import RawGroundTruth, ambiguous, raw_ground_truth, segments_of


@dataclass(frozen=True)
class Subset:
    """The evaluated videos.

    Attributes:
        ground_truth: their segments as annotated; what of them counts is the protocol's choice.
        ambiguous: intervals (seconds) by video.
        elsewhere: the annotation file's other videos. Detections there are left out; detections in videos that the
            file does not know at all are false positives.
    """

    ground_truth: RawGroundTruth
    ambiguous: Mapping[str, Sequence[tuple[float, float]]]
    elsewhere: frozenset[str]

    @classmethod
    def of_dataset(cls, dataset: Dataset, name: str) -> Subset:
        """A role (train, dev, test) or a subset of a dataset, without its ignored videos.

        Raises:
            DataError: the dataset has no such role or subset, or its annotations cannot be read: they hold a class
                that dataset.yaml lacks, or a segment that ends before it begins.
        """
        subsets = dataset.manifest.subsets
        names = [s for s, role in subsets.items() if role == name] if name in ROLES else [name]
        if not names or not set(names) <= subsets.keys():
            found = ", ".join(f"{s} (role {role})" for s, role in subsets.items())
            raise DataError(f"{dataset.root}: no role or subset {name!r}; dataset.yaml has {found}")
        ignored = set(dataset.manifest.ignored)
        segments_of(dataset, [v.id for v in dataset.videos_by_id.values() if v.subset in names and v.id not in ignored])
        return cls._read(dataset.root / "annotations.json", names, dataset.manifest.ignored, ambiguous(dataset))

    @classmethod
    def of_file(cls, path: Path | str, name: str, ignored: Collection[str] = ()) -> Subset:
        """A subset of a bare ActivityNet-style annotation file, without the ignored videos.

        Raises:
            DataError: no such subset (names those found), an ignored video is not in the file, or it cannot be read.
        """
        return cls._read(Path(path), [name], ignored, {})

    @classmethod
    def _read(
        cls,
        path: Path,
        names: Sequence[str],
        ignored: Collection[str],
        intervals: Mapping[str, Sequence[tuple[float, float]]],
    ) -> Subset:
        everything, raw = set(raw_ground_truth(path, ()).videos), raw_ground_truth(path, names)
        unknown = sorted(set(ignored) - everything)
        if unknown:
            raise DataError(f"{path}: the ignored videos {', '.join(unknown)} are not in this file")
        keep = ~np.isin(raw.video_id, list(ignored))
        videos = [v for v in raw.videos if v not in set(ignored)]
        if not keep.any():
            raise DataError(
                f"{path}: subset {', '.join(names)} has {len(videos)} videos and no ground-truth segment; "
                "there is nothing to evaluate against"
            )
        kept = RawGroundTruth(
            videos, raw.video_id[keep], raw.start[keep], raw.end[keep], raw.label[keep], raw.durations
        )
        return cls(kept, intervals, frozenset(everything.difference(videos)))

    def own(self, detections: Segments | Detections) -> Segments | Detections:
        """The detections that are scored: all but those in the file's other videos.

        Raises:
            DataError: there are none at all, or none in an evaluated video, or none of a class of the ground truth.
        """
        if not len(detections):
            raise DataError("no detections")
        check_videos(detections, self.ground_truth.videos)
        classes, labels = set(self.ground_truth.label.tolist()), detections.codes("label")[1]
        if classes.isdisjoint(labels):
            raise DataError(
                f"the detections share no class with the ground truth: "
                f"theirs are {few(sorted(labels), 3)}, its are {few(sorted(classes), 3)}"
            )
        codes, names = detections.codes("video_id")
        scored = np.array([v not in self.elsewhere for v in names], dtype=bool)
        return detections if scored.all() else detections.filter(scored[codes])

    def evaluate(
        self, detections: Segments | Detections, tious: Sequence[float] = DEFAULT_TIOUS, protocol: str = "anet"
    ) -> Evaluation:
        """`tad.evaluation.evaluator.evaluate` on these videos.

        Raises:
            DataError, ConfigError: as there.
        """
        own = self.own(detections)
        result = evaluate(own, self.ground_truth, tious, protocol, self.ambiguous)
        return replace(result, counts=result.counts | {"detections_in_other_videos": len(detections) - len(own)})

    def judge(self, detections: Segments | Detections, tiou: float = 0.5, protocol: str = "anet") -> Judged:
        """`tad.evaluation.evaluator.judge` on these videos.

        Raises:
            DataError, ConfigError: as there.
        """
        return judge(self.own(detections), self.ground_truth, tiou, protocol, self.ambiguous)

    def doubts(self, detections: Segments | Detections) -> list[str]:
        """What makes it likely that the file means something else than it is read as: other units, ids and names."""
        own = self.own(detections)
        codes, videos = own.codes("video_id")
        notes = []
        durations = np.array([self.ground_truth.durations.get(v, np.nan) for v in videos])[codes]
        late = int((own.spans[:, 0] >= durations).sum())
        if 2 * late > len(own):
            notes.append(
                f"{late} of {len(own)} detections begin after the end of their video: times are read as seconds; are "
                "these frames or milliseconds?"
            )
        elif own.spans.max() <= 1 < np.nanmedian(self.ground_truth.end):
            notes.append("all detections end within 1 s: times are read as seconds; are these shares of the video?")
        unknown = sorted(set(videos) - set(self.ground_truth.videos) - self.elsewhere)
        if unknown:
            notes.append(f"the annotations do not know {len(unknown)} videos: {few(unknown, 3)}")
        classes = set(self.ground_truth.label.tolist())
        others = sorted(set(own.codes("label")[1]) - classes)
        if others:
            names = ", ".join(unlike(name, classes) for name in others[:5])
            notes.append(f"classes that are not in the ground truth: {names}")
        return notes
