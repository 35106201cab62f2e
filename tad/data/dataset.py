"""A dataset folder: what training may read. Boundaries are not here but in tad.evaluation.ground_truth.

DATASET/dataset.yaml      name, classes, role of each subset, feature grid, ignored videos, ambiguous intervals
DATASET/annotations.json  ActivityNet style; subset, duration and fps of each video are read here
DATASET/points.csv        the labels; also labels.csv and full_labels.csv (tad.data.labels)
DATASET/held_out.csv      optional, as points.csv: points of training videos that training must not see
DATASET/features/ID.npy   [T, dim] float16 or float32

DATASET may be a URI (tad.data.remote). The small files are then fetched when it is opened, features when they are read.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from tad.data.digests import digests_here
from tad.data.features import FRONT, Header, header_of, matrix, read_header
from tad.data.grid import SnippetGrid
from tad.data.labels import (
    CLASSES,
    FULL,
    NO_POINTS,
    POINTS,
    FullLabels,
    Points,
    Supervision,
    read_full_labels,
    read_held_out,
    read_points,
    read_video_classes,
)
from tad.data.manifest import ROLES, SAFE_ID, Derived, FeatureGrid, Manifest, Role, Split, beside, read_manifest
from tad.data.remote import RemoteFolder, is_uri
from tad.data.videos import Video, read_videos
from tad.errors import DataError
from tad.files import cause

__all__ = ["ROLES", "SAFE_ID", "Dataset", "Derived", "FeatureGrid", "Manifest", "Role", "Split", "Video"]


@dataclass(frozen=True, eq=False)
class Dataset:
    """A dataset folder, opened. Pickles as its path, so it travels to workers cheaply.

    Use `Dataset.open`. Iterating over videos of a role gives the order of annotations.json.
    """

    root: Path
    manifest: Manifest
    videos_by_id: Mapping[str, Video]
    points_by_id: Mapping[str, Points]
    held_out_by_id: Mapping[str, Points] = field(default_factory=dict)
    classes_by_id: Mapping[str, np.ndarray] = field(default_factory=dict)
    """[K] class indices of each video of labels.csv."""
    full_by_id: Mapping[str, FullLabels] = field(default_factory=dict)
    remote: RemoteFolder | None = None
    """Where it comes from, if `root` is a cache."""

    @classmethod
    def open(cls, root: Path | str) -> Dataset:
        """Reads the manifest, the videos and their labels (no features, no boundaries of annotations.json).

        Raises:
            DataError: a file is missing or malformed; lists every problem of the first bad file. Or the URI cannot be
                read; says why.
        """
        remote = None
        if is_uri(root):
            remote = RemoteFolder(str(root))
            remote.fetch_small()
            root = remote.here
        try:
            root = Path(root).expanduser().resolve()
            found = root.is_dir()
        except (RuntimeError, OSError) as error:  # no such user, a loop of links, no permission
            raise DataError(f"{root}: no such dataset folder: {cause(error)}") from None
        if not found:
            raise DataError(f"{root}: no such dataset folder")
        manifest = read_manifest(root)
        videos = read_videos(root / "annotations.json", manifest)
        durations = {v.id: v.duration for v in videos.values()}
        training = {v.id for v in videos.values() if manifest.subsets[v.subset] == "train"}
        points, held_out = read_points(root / POINTS, manifest.classes, durations), {}
        if manifest.held_out is not None:
            held_out = read_held_out(
                beside(root, manifest.held_out, "held_out"), manifest.classes, durations, training, points
            )
        classes = read_video_classes(root / CLASSES, manifest.classes, durations)
        full = read_full_labels(root / FULL, manifest.classes, durations, training)
        return cls(root, manifest, videos, points, held_out, classes, full, remote)

    def __reduce__(self) -> Any:
        return Dataset.open, (self.remote.uri if self.remote is not None else self.root,)

    @property
    def place(self) -> str:
        """What opens it again, on any machine that sees it: its folder or URI."""
        return self.remote.uri if self.remote is not None else str(self.root)

    @property
    def name(self) -> str:
        return self.manifest.name

    @property
    def classes(self) -> list[str]:
        return self.manifest.classes

    def videos(self, role: Role) -> list[str]:
        """Ids of a role's videos that are not ignored."""
        ignored = set(self.manifest.ignored)
        return [
            v.id
            for v in self.videos_by_id.values()
            if self.manifest.subsets.get(v.subset) == role and v.id not in ignored
        ]

    def duration(self, video_id: str) -> float:
        """Seconds."""
        return self.videos_by_id[video_id].duration

    def points(self, video_id: str) -> Points:
        return self.points_by_id.get(video_id, NO_POINTS)

    def held_out(self, video_id: str) -> Points:
        """Points of a training video that only honest scores may read (tad.selection); never training."""
        return self.held_out_by_id.get(video_id, NO_POINTS)

    def video_classes(self, video_id: str) -> np.ndarray:
        """[K] int64, ascending: the classes that any given label says are in the video."""
        full = self.full_labels(video_id)
        listed = self.classes_by_id.get(video_id, NO_POINTS.label)
        return np.unique(
            np.concatenate([self.points(video_id).label, listed, NO_POINTS.label if full is None else full.label])
        )

    def full_labels(self, video_id: str) -> FullLabels | None:
        """All actions of a training video, if it is fully labelled (full_labels.csv)."""
        return self.full_by_id.get(video_id)

    def supervision(self, video_id: str) -> Supervision:
        """The strongest label that is given for the video."""
        if video_id in self.full_by_id:
            return "full"
        if len(self.points(video_id).time):
            return "points"
        return "classes" if video_id in self.classes_by_id else "none"

    def feature_path(self, video_id: str) -> Path:
        """Where the file is, if there is one; fetched first if the dataset is remote."""
        name = f"features/{video_id}.npy"
        return self.remote.path(name) if self.remote is not None else self.root / name

    def features(self, video_id: str) -> np.ndarray:
        """[T, dim], memory-mapped, as stored (float16 or float32).

        Raises:
            DataError: no such file, not a plain .npy matrix of floats, or of another width than the manifest says.
        """
        path = self.feature_path(video_id)
        try:
            return matrix(path, self.manifest.grid.dim)
        except FileNotFoundError:
            where = path if self.remote is None else f"{self.place}/features/{video_id}.npy"
            raise DataError(
                f"{where}: no feature file for video {video_id}; put it there or run `tad synth {self.root}`"
            ) from None

    def header(self, video_id: str) -> Header:
        """What stands in front of the values of the feature file; nothing else is read or fetched.

        Raises:
            FileNotFoundError: there is no file.
            Unreadable: it is not a plain .npy file.
        """
        if self.remote is None:
            return header_of(self.feature_path(video_id))
        found = self.remote.front(f"features/{video_id}.npy", FRONT)
        if found is None:
            raise FileNotFoundError(video_id)
        return read_header(*found)

    def grid(self, video_id: str, length: int | None = None) -> SnippetGrid:
        """The video's snippet grid; `length` saves opening the feature file when it is known."""
        video = self.videos_by_id[video_id]
        length = self.features(video_id).shape[0] if length is None else length
        return self.manifest.grid.grid(length, video.duration, video.fps)

    def fingerprint(self, role: Role) -> str:
        """Hash of all that stages on this role's videos read: classes, grid, durations, labels, feature files.

        Feature files enter by their whole content. It is read once and remembered while the file stays as it is, so
        only the first hash takes time. Boundaries of annotations.json and held-out points do not enter: training cannot
        depend on them.

        Raises:
            DataError: a feature file cannot be read.
        """
        digest = hashlib.sha256()
        head = {"classes": self.classes, "grid": self.manifest.grid.model_dump(), "role": role}
        digest.update(json.dumps(head, sort_keys=True).encode())
        videos = self.videos(role)
        content = self._digests(videos)
        for video_id in videos:
            video, points = self.videos_by_id[video_id], self.points(video_id)
            digest.update(json.dumps([video_id, video.duration, video.fps]).encode())
            digest.update(points.time.tobytes() + points.label.tobytes())
            for key, labels in (("classes", self.classes_by_id.get(video_id)), ("full", self.full_by_id.get(video_id))):
                if labels is not None:
                    columns = [labels] if isinstance(labels, np.ndarray) else list(labels)
                    digest.update(json.dumps([key, *(column.tolist() for column in columns)]).encode())
            digest.update(json.dumps(["features", content[video_id]]).encode())
        return digest.hexdigest()

    def _digests(self, videos: list[str]) -> dict[str, str]:
        """Of each video's feature file; "" where there is none."""
        names = {video: f"features/{video}.npy" for video in videos}
        if self.remote is None:
            return digests_here({video: self.root / name for video, name in names.items()})
        found = self.remote.digests(list(names.values()))
        return {video: found[name] for video, name in names.items()}
