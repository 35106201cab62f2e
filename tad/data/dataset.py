"""A dataset folder: what training may read. Boundaries are not here but in tad.data.ground_truth.

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
import re
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

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
from tad.data.remote import RemoteFolder, is_uri, sample
from tad.errors import DataError, listing
from tad.files import read_json, read_yaml

Role = Literal["train", "dev", "test"]
ROLES: tuple[Role, ...] = ("train", "dev", "test")
SAFE_ID = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+=@-]{0,199}")
"""A video id becomes a file name: no separators, no leading dot, at most 200 characters."""
BLOCK = 4096
"""Bytes of a feature file that enter the fingerprint at a time."""


class FeatureGrid(BaseModel):
    """The clock of the feature files; see tad.data.grid for the conventions.

    Attributes:
        fps: rate of the frames that stride, window and offset count; "native" takes each video's own.
        stride: frames from one row to the next.
        window: frames that one row sees.
        offset: frame at which the first window begins.
        length: set for features resized in time to this many rows; fps, stride, window and offset are then unused.
        dim: width of a row.
        dtype: type of the files.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    fps: Annotated[float, Field(gt=0)] | Literal["native"] = 25.0
    stride: float = Field(default=16, gt=0)
    window: float = Field(default=16, gt=0)
    offset: float = 0.0
    length: Annotated[int, Field(ge=1)] | None = None
    dim: int = Field(ge=1)
    dtype: Literal["float16", "float32"] = "float32"

    def expected_length(self, duration: float, video_fps: float | None) -> int:
        """Rows that a video of this duration (seconds) should have."""
        if self.length is not None:
            return self.length
        return SnippetGrid.expected_length(duration, self._rate(video_fps), self.stride, self.window, self.offset)

    def grid(self, length: int, duration: float, video_fps: float | None) -> SnippetGrid:
        """The grid of one video whose file has `length` rows."""
        if self.length is not None:
            return SnippetGrid.resized(duration, length)
        return SnippetGrid(self._rate(video_fps), self.stride, self.window, length, self.offset)

    def _rate(self, video_fps: float | None) -> float:
        if self.fps != "native":
            return float(self.fps)
        if video_fps is None:
            raise DataError('the feature grid says fps: native, so annotations.json must give "fps" for every video')
        return video_fps


class Split(BaseModel):
    """How `tad split` made a folder: shares of the training videos and of their points that are held out.

    Attributes:
        dev: share of the training videos that became dev videos; their boundaries count as supervision, if used.
        hidden: share of the training points that went to the held-out points.
        seed: which ones.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    dev: Annotated[float, Field(gt=0, lt=1)] | None = None
    hidden: Annotated[float, Field(gt=0, lt=1)] | None = None
    seed: int = Field(ge=0)


class Derived(BaseModel):
    """How `tad labels` or `tad split --labelled` made the label files of a folder out of another one's.

    Attributes:
        source: name of that dataset.
        classes_from: where video-level classes come from: the given labels, or the annotations.
        kinds: number of training videos by the kind of label they were left with; "keep": what they had.
        seed: which ones, where they were drawn.
        mode: how `tad split --labelled` drew the fully labelled ones.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    source: str = Field(min_length=1)
    classes_from: Literal["given", "annotations"]
    kinds: dict[Literal["full", "points", "classes", "none", "keep"], Annotated[int, Field(ge=0)]]
    seed: Annotated[int, Field(ge=0)] | None = None
    mode: Literal["stratified", "uniform"] | None = None


class Manifest(BaseModel):
    """dataset.yaml."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(min_length=1)
    classes: list[str] = Field(min_length=1)
    subsets: dict[str, Role]
    grid: FeatureGrid
    ignored: list[str] = Field(default_factory=list)
    ambiguous: str | None = None
    held_out: str | None = None
    split: Split | None = None
    labels: Derived | None = None

    @model_validator(mode="after")
    def _distinct(self) -> Manifest:
        doubled = sorted({c for c in self.classes if self.classes.count(c) > 1})
        if doubled:
            raise ValueError(f"classes listed twice: {', '.join(doubled)}")
        return self


class Video(NamedTuple):
    """One video; duration in seconds, fps its own frame rate (None if unknown)."""

    id: str
    subset: str
    duration: float
    fps: float | None


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
        root = Path(root).expanduser().resolve()
        if not root.is_dir():
            raise DataError(f"{root}: no such dataset folder")
        manifest = read_manifest(root)
        videos = read_videos(root / "annotations.json", manifest)
        durations = {v.id: v.duration for v in videos.values()}
        training = {v.id for v in videos.values() if manifest.subsets[v.subset] == "train"}
        points, held_out = read_points(root / POINTS, manifest.classes, durations), {}
        if manifest.held_out is not None:
            held_out = read_held_out(root / manifest.held_out, manifest.classes, durations, training, points)
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
        """Points of a training video that only honest scores may read (tad.honest); never training."""
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
            DataError: no such file, not a plain .npy matrix, or of another width than the manifest says.
        """
        path = self.feature_path(video_id)
        try:
            array = np.load(path, mmap_mode="r", allow_pickle=False)
        except FileNotFoundError:
            where = path if self.remote is None else f"{self.place}/features/{video_id}.npy"
            raise DataError(
                f"{where}: no feature file for video {video_id}; put it there or run `tad synth {self.root}`"
            ) from None
        except (ValueError, OSError, EOFError) as error:
            raise DataError(f"{path}: not a plain .npy file: {error}") from error
        if array.ndim != 2 or array.shape[0] < 1 or array.shape[1] != self.manifest.grid.dim:
            raise DataError(
                f"{path}: shape {array.shape}, expected [T >= 1, {self.manifest.grid.dim}] (grid.dim of dataset.yaml)"
            )
        return array

    def grid(self, video_id: str, length: int | None = None) -> SnippetGrid:
        """The video's snippet grid; `length` saves opening the feature file when it is known."""
        video = self.videos_by_id[video_id]
        length = self.features(video_id).shape[0] if length is None else length
        return self.manifest.grid.grid(length, video.duration, video.fps)

    def fingerprint(self, role: Role) -> str:
        """Hash of all that stages on this role's videos read: classes, grid, durations, labels, feature files.

        Feature files enter by size and three blocks of their content, so the hash takes milliseconds per video.
        Boundaries of annotations.json and held-out points do not enter: training cannot depend on them.
        """
        digest = hashlib.sha256()
        head = {"classes": self.classes, "grid": self.manifest.grid.model_dump(), "role": role}
        digest.update(json.dumps(head, sort_keys=True).encode())
        videos = self.videos(role)
        with ThreadPoolExecutor(32) as pool:
            samples = dict(zip(videos, pool.map(self._sample, videos), strict=True)) if self.remote is not None else {}
        for video_id in videos:
            video, points = self.videos_by_id[video_id], self.points(video_id)
            digest.update(json.dumps([video_id, video.duration, video.fps]).encode())
            digest.update(points.time.tobytes() + points.label.tobytes())
            for key, labels in (("classes", self.classes_by_id.get(video_id)), ("full", self.full_by_id.get(video_id))):
                if labels is not None:
                    columns = [labels] if isinstance(labels, np.ndarray) else list(labels)
                    digest.update(json.dumps([key, *(column.tolist() for column in columns)]).encode())
            digest.update(samples[video_id] if samples else self._sample(video_id))
        return digest.hexdigest()

    def _sample(self, video_id: str) -> bytes:
        """Size and three blocks of a feature file; empty if there is none."""
        if self.remote is not None:
            return self.remote.blocks(f"features/{video_id}.npy", BLOCK)
        path = self.feature_path(video_id)
        if not path.is_file():
            return b""
        with path.open("rb") as file:
            return sample(file, path.stat().st_size, BLOCK)


def read_manifest(root: Path) -> Manifest:
    """dataset.yaml.

    Raises:
        DataError: missing or malformed; every problem is listed with its place.
    """
    path = root / "dataset.yaml"
    if not path.is_file():
        raise DataError(f"{path}: missing; see docs/data.md, or import a dataset with `tad import`")
    try:
        return Manifest.model_validate(read_yaml(path))
    except ValidationError as error:
        problems = [f"{'.'.join(map(str, e['loc'])) or 'file'}: {e['msg']}" for e in error.errors()]
        raise DataError(f"{path}: " + listing(problems)) from error


def read_videos(path: Path, manifest: Manifest) -> dict[str, Video]:
    """The videos of annotations.json whose subset the manifest knows; boundaries are not kept.

    Raises:
        DataError: lists every video with an unsafe id or without a usable subset and duration.
    """
    document = read_json(path)
    database = document.get("database") if isinstance(document, dict) else None
    if not isinstance(database, dict):
        raise DataError(f'{path}: expected {{"database": {{video: {{subset, duration, fps, annotations}}}}}}')
    videos: dict[str, Video] = {}
    problems: list[str] = []
    for video_id, entry in database.items():
        if not SAFE_ID.fullmatch(video_id):
            problems.append(f"video {video_id!r}: unsafe as a file name; use letters, digits and _ . + = @ -")
            continue
        try:
            duration, fps = float(entry["duration"]), entry.get("fps")
            video = Video(video_id, str(entry["subset"]), duration, None if fps is None else float(fps))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            problems.append(f"video {video_id}: needs subset, duration (seconds) and fps: {error!r}")
            continue
        if not (np.isfinite(duration) and duration > 0) or (video.fps is not None and not video.fps > 0):
            problems.append(f"video {video_id}: duration {duration} s, fps {fps}; both must be positive")
            continue
        if video.subset not in manifest.subsets:
            continue
        if manifest.grid.fps == "native" and manifest.grid.length is None and video.fps is None:
            problems.append(f"video {video_id}: no fps, but the feature grid counts frames of the video (fps: native)")
            continue
        videos[video_id] = video
    if problems:
        raise DataError(f"{path}: " + listing(problems))
    if not videos:
        found = sorted({str(e.get("subset")) for e in database.values() if isinstance(e, dict)})
        raise DataError(
            f"{path}: no video is in a subset of dataset.yaml ({', '.join(manifest.subsets)}); "
            f"found the subsets {', '.join(found) or 'none'}"
        )
    return videos
