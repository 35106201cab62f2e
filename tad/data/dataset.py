"""A dataset folder: what training may read. Boundaries are not here but in tad.evaluation.ground_truth.

DATASET/dataset.yaml      name, classes, role of each subset, feature grid, ignored videos, ambiguous intervals
DATASET/annotations.json  ActivityNet style; subset, duration and fps of each video are read here
DATASET/points.csv        the labels; also labels.csv and full_labels.csv (tad.data.labels)
DATASET/held_out.csv      optional, as points.csv: points of training videos that training must not see
DATASET/features/ID.npy   [T, dim] float16 or float32
DATASET/features-NAME/    the same of further features, which dataset.yaml describes under `features`

DATASET may be a URI (tad.data.remote). The small files are then fetched when it is opened, features when they are read.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from tad.data.digests import digests_here
from tad.data.features import FRONT, Header, header_of, matrix, read_header
from tad.data.grid import SnippetGrid
from tad.data.labels import (
    NO_POINTS,
    SUPERVISION,
    TYPES,
    Classes,
    FullLabels,
    LabelType,
    Points,
    Supervision,
    open_held_out,
    open_labels,
)
from tad.data.manifest import (
    ROLES,
    SAFE_ID,
    Derived,
    FeatureGrid,
    Manifest,
    Role,
    Split,
    beside,
    features_folder,
    grid_key,
    read_manifest,
)
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
    points_by_id: Mapping[str, Points] = field(default_factory=dict)
    held_out_by_id: Mapping[str, Points] = field(default_factory=dict)
    classes_by_id: Mapping[str, Classes] = field(default_factory=dict)
    full_by_id: Mapping[str, FullLabels] = field(default_factory=dict)
    remote: RemoteFolder | None = None
    """Where it comes from, if `root` is a cache."""
    held: frozenset[str] = frozenset()
    """Training videos that are dev videos here; see `holding`."""
    read: str | None = None
    """The further features that stand for the usual ones here; see `reading`."""

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
        given = {kind.name: open_labels(root / kind.file, kind, manifest, videos) for kind in TYPES}
        held_out = {}
        if manifest.held_out is not None:
            path = beside(root, manifest.held_out, "held_out")
            held_out = open_held_out(path, manifest, videos, given["points"])
        labels: dict[str, Any] = {f"{name}_by_id": found for name, found in given.items()}
        return cls(root, manifest, videos, held_out_by_id=held_out, remote=remote, **labels)

    def __reduce__(self) -> Any:
        place = self.remote.uri if self.remote is not None else self.root
        return (_opened, (place, self.held, self.read)) if self.held or self.read else (Dataset.open, (place,))

    def holding(self, videos: Collection[str]) -> Dataset:
        """The same dataset in which these training videos are the dev videos, so that nothing learns from them."""
        return replace(self, held=frozenset(videos))

    def reading(self, name: str | None) -> Dataset:
        """The same dataset with the grid and the files of further features for the usual ones; None: as it is.

        Raises:
            DataError: dataset.yaml does not describe them.
        """
        if name is None:
            return self
        if name not in self.manifest.features:
            known = ", ".join(self.manifest.features) or "none"
            raise DataError(
                f"{self.place}/dataset.yaml: no features named {name!r} (found: {known}); describe their grid under "
                f"`features`, with files in {features_folder(name)}/, or read the usual ones: detector_features: null"
            )
        grid = self.manifest.features[name]
        return replace(self, manifest=self.manifest.model_copy(update={"grid": grid}), read=name)

    @property
    def folder(self) -> str:
        """Of the feature files, in the dataset."""
        return features_folder(self.read)

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
        ignored, given = set(self.manifest.ignored), role
        if self.held and role == "dev":
            given = "train"
        found = [
            v.id
            for v in self.videos_by_id.values()
            if self.manifest.subsets.get(v.subset) == given and v.id not in ignored
        ]
        return [v for v in found if (v in self.held) == (role == "dev")] if self.held and role != "test" else found

    def duration(self, video_id: str) -> float:
        """Seconds."""
        return self.videos_by_id[video_id].duration

    def labels(self, kind: LabelType) -> Mapping[str, Any]:
        """What the videos have of one type of label."""
        found: Mapping[str, Any] = getattr(self, f"{kind.name}_by_id")
        return found

    def points(self, video_id: str) -> Points:
        return self.points_by_id.get(video_id, NO_POINTS)

    def held_out(self, video_id: str) -> Points:
        """Points of a training video that only honest scores may read (tad.selection); never training."""
        return self.held_out_by_id.get(video_id, NO_POINTS)

    def full_labels(self, video_id: str) -> FullLabels | None:
        """All actions of a training video, if it is fully labelled (full_labels.csv)."""
        return self.full_by_id.get(video_id)

    def video_classes(self, video_id: str) -> np.ndarray:
        """[K] int64, ascending: the classes that any given label says are in the video."""
        given = [self.labels(kind)[video_id].label for kind in TYPES if video_id in self.labels(kind)]
        return np.unique(np.concatenate([NO_POINTS.label, *given]))

    def supervision(self, video_id: str) -> Supervision:
        """The strongest label that is given for the video."""
        given = {kind.name for kind in TYPES if video_id in self.labels(kind)}
        return next((name for name in SUPERVISION if name in given), "none")

    def kinds(self, role: Role) -> Counter[Supervision]:
        """How many of a role's videos have each kind of label as their strongest one."""
        return Counter(map(self.supervision, self.videos(role)))

    def pointed(self, role: Role) -> list[str]:
        """The videos of a role that have points, also beside other labels."""
        return [video for video in self.videos(role) if len(self.points(video).time)]

    def point_count(self, role: Role) -> int:
        """Points of all videos of a role."""
        return sum(len(self.points(video).time) for video in self.videos(role))

    def feature_path(self, video_id: str) -> Path:
        """Where the file is, if there is one; fetched first if the dataset is remote."""
        name = f"{self.folder}/{video_id}.npy"
        return self.remote.path(name) if self.remote is not None else self.root / name

    def has_features(self, role: Role) -> bool:
        """Whether a video of the role has a feature file; none is fetched."""
        names = (f"{self.folder}/{video}.npy" for video in self.videos(role))
        if self.remote is not None:
            return any(name in self.remote for name in names)
        return any((self.root / name).is_file() for name in names)

    def features(self, video_id: str) -> np.ndarray:
        """[T, dim], memory-mapped, as stored (float16 or float32).

        Raises:
            DataError: no such file, not a plain .npy matrix of floats, or of another width than the manifest says.
        """
        path = self.feature_path(video_id)
        try:
            return matrix(path, self.manifest.grid.dim, grid_key(self.read))
        except FileNotFoundError:
            where = path if self.remote is None else f"{self.place}/{self.folder}/{video_id}.npy"
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
        found = self.remote.front(f"{self.folder}/{video_id}.npy", FRONT)
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
            for kind in TYPES[1:]:
                if (own := self.labels(kind).get(video_id)) is not None:
                    digest.update(json.dumps([kind.name, *(column.tolist() for column in own)]).encode())
            digest.update(json.dumps(["features", content[video_id]]).encode())
        return digest.hexdigest()

    def _digests(self, videos: list[str]) -> dict[str, str]:
        """Of each video's feature file; "" where there is none."""
        names = {video: f"{self.folder}/{video}.npy" for video in videos}
        if self.remote is None:
            return digests_here({video: self.root / name for video, name in names.items()})
        found = self.remote.digests(list(names.values()))
        return {video: found[name] for video, name in names.items()}


def _opened(place: Path | str, held: frozenset[str], read: str | None) -> Dataset:
    return Dataset.open(place).holding(held).reading(read)
