"""dataset.yaml: name, classes, roles and feature grid of a dataset, within bounds that make sense."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, field_validator

from tad.data.grid import SnippetGrid
from tad.errors import DataError, listing, shortened
from tad.files import number, read_yaml

Role = Literal["train", "dev", "test"]
ROLES: tuple[Role, ...] = get_args(Role)
Supervision = Literal["full", "points", "classes", "none"]
"""The strongest label of a video."""
SUPERVISION: tuple[Supervision, ...] = get_args(Supervision)
SAFE_ID = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.+=@-]{0,199}")
"""A video id becomes a file name: no separators, no leading dot, at most 200 characters."""
LONGEST_NAME = 100
"""Bytes of a dataset's name: a run's folder is named by recipe, dataset and seed, and file systems stop at 255."""
LONGEST_CLASS = 500
"""Characters of a class name; some are whole sentences."""
FEATURES = "features"
"""Folder of the feature files on the usual grid; those of further features NAME are in features-NAME."""
SAFE_NAME = re.compile(r"[a-z0-9][a-z0-9_]{0,39}")
"""A name of further features: part of a folder's name, and a word in options."""
LEAST_RATE, MOST_RATE = 1e-4, 1e6
"""Frames a second: from one in some hours (time lapse) to more than a microphone's samples."""


def _no_flag(value: Any) -> Any:
    if isinstance(value, bool):
        raise ValueError("must be a number; true and false are none")
    return value


def _rate(value: Any) -> Any:
    if value == "native":
        return value
    with suppress(ValueError):
        if LEAST_RATE <= (rate := number(value)) <= MOST_RATE:
            return rate
    raise ValueError(f"must be native or a number of {LEAST_RATE:g} to {MOST_RATE:g}, not {shortened(value)}")


Number = Annotated[float, BeforeValidator(_no_flag), Field(allow_inf_nan=False)]
Count = Annotated[int, BeforeValidator(_no_flag)]
Frames = Annotated[Number, Field(ge=1e-3, le=1e6)]
"""A stride or window: from a fraction of a frame to 11 hours of 25 frames a second."""


class FeatureGrid(BaseModel):
    """The clock of the feature files; see tad.data.grid for the conventions.

    Attributes:
        fps: rate of the frames that stride, window and offset count; "native" takes each video's own.
        stride: frames from one row to the next.
        window: frames that one row sees.
        offset: frame at which the first window begins; negative where the extractor padded the video.
        length: set for features resized in time to this many rows (published: 100 to 2304); fps, stride, window and
            offset are then unused.
        dim: width of a row (published: up to 10,000).
        dtype: type of the files.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    fps: Annotated[float | Literal["native"], BeforeValidator(_rate)] = 25.0
    stride: Frames = 16
    window: Frames = 16
    offset: Annotated[Number, Field(ge=-1e6, le=1e6)] = 0.0
    length: Annotated[Count, Field(ge=1, le=1_000_000)] | None = None
    dim: Annotated[Count, Field(ge=1, le=1_000_000)]
    dtype: Literal["float16", "float32"] = "float32"

    def expected_length(self, duration: float, video_fps: float | None) -> int:
        """Rows that a video of this duration (seconds) should have."""
        if self.length is not None:
            return self.length
        return SnippetGrid.expected_length(duration, self._ticks(video_fps), self.stride, self.window, self.offset)

    def grid(self, length: int, duration: float, video_fps: float | None) -> SnippetGrid:
        """The grid of one video whose file has `length` rows."""
        if self.length is not None:
            return SnippetGrid.resized(duration, length)
        return SnippetGrid(self._ticks(video_fps), self.stride, self.window, length, self.offset)

    def _ticks(self, video_fps: float | None) -> float:
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
    kinds: dict[Supervision | Literal["keep"], Annotated[int, Field(ge=0)]]
    seed: Annotated[int, Field(ge=0)] | None = None
    mode: Literal["stratified", "uniform"] | None = None


class Manifest(BaseModel):
    """dataset.yaml; `parse_manifest` makes it. Names lose the blanks around them, as fields of the CSV files do."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    classes: list[str] = Field(min_length=1)
    subsets: dict[str, Role]
    grid: FeatureGrid
    features: dict[str, FeatureGrid] = Field(default_factory=dict)
    ignored: list[str] = Field(default_factory=list)
    ambiguous: str | None = None
    held_out: str | None = None
    split: Split | None = None
    labels: Derived | None = None

    @field_validator("name")
    @classmethod
    def _usable_name(cls, name: str) -> str:
        """The default run folder has the name in it."""
        name = name.strip()
        if not name or name.startswith(".") or any(c in "/\\" for c in name) or unprintable(name):
            raise ValueError(
                f"{name!r} cannot be part of a folder's name; leave out / and \\, control characters and a dot in front"
            )
        if len(name.encode(errors="replace")) > LONGEST_NAME:
            raise ValueError(
                f"has {len(name.encode(errors='replace'))} bytes; at most {LONGEST_NAME}, for folder names"
            )
        return name

    @field_validator("classes")
    @classmethod
    def _usable_classes(cls, classes: list[str]) -> list[str]:
        classes = [name.strip() for name in classes]
        problems = [f"{shortened(name)} {why}" for name in classes if (why := _class_problem(name))]
        count = Counter(classes)
        if doubled := sorted(name for name, n in count.items() if n > 1):
            problems.append(f"classes listed twice: {', '.join(doubled)}")
        forms: dict[str, list[str]] = {}
        for name in count:
            forms.setdefault(unicodedata.normalize("NFC", name), []).append(name)
        problems += [f"{form!r} appears twice, in two Unicode forms" for form, names in forms.items() if len(names) > 1]
        if problems:
            raise ValueError("; ".join(problems[:20]))
        return classes

    @field_validator("subsets")
    @classmethod
    def _plain_subsets(cls, subsets: dict[str, Role]) -> dict[str, Role]:
        plain = {name.strip(): role for name, role in subsets.items()}
        if len(plain) < len(subsets):
            raise ValueError("a subset appears twice, but for blanks around its name")
        return plain

    @field_validator("features")
    @classmethod
    def _usable_features(cls, features: dict[str, FeatureGrid]) -> dict[str, FeatureGrid]:
        """Their names are parts of folders' names."""
        if unlike := [shortened(name) for name in features if not SAFE_NAME.fullmatch(name)]:
            raise ValueError(
                f"{', '.join(unlike)} cannot be names of features; up to 40 small letters, digits and _ can"
            )
        return features

    @property
    def grids(self) -> dict[str | None, FeatureGrid]:
        """The grid of the usual features (None) and of all further ones by name."""
        return dict(zip((None, *self.features), (self.grid, *self.features.values()), strict=True))

    @field_validator("ambiguous", "held_out")
    @classmethod
    def _beside(cls, file: str | None) -> str | None:
        """A dataset of somebody else must not lead to other files of this machine."""
        if file is not None and (file in ("", ".", "..") or "/" in file or "\\" in file or unprintable(file)):
            raise ValueError(f"{file!r} must be the name of a file beside dataset.yaml, without a folder")
        return file


def features_folder(name: str | None) -> str:
    """The folder of the feature files: of the usual ones (None), or of further ones by name."""
    return FEATURES if name is None else f"{FEATURES}-{name}"


def grid_key(name: str | None) -> str:
    """Where dataset.yaml describes the grid of these features, for messages."""
    return "grid" if name is None else f"features.{name}"


def unprintable(text: str) -> bool:
    """Whether there are control characters, line breaks or lone surrogates in it, which no name needs."""
    return any(unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp") for c in text)


def _class_problem(name: str) -> str | None:
    if not name:
        return "is no class name"
    if unprintable(name):
        return "holds a line break or control character"
    return f"is longer than {LONGEST_CLASS} characters" if len(name) > LONGEST_CLASS else None


def beside(root: Path, file: str, key: str) -> Path:
    """The path of a file that dataset.yaml names under `key`.

    Raises:
        DataError: it is missing, or a link that leads out of the dataset folder; nothing of its content is shown.
    """
    path = root / file
    if path.is_symlink() and not path.resolve().is_relative_to(root.resolve()):
        raise DataError(
            f"{path}: is a link out of the dataset folder; dataset.yaml names it under `{key}`: copy it here"
        )
    if not path.exists():
        raise DataError(f"{path}: missing, but dataset.yaml names it under `{key}`")
    return path


def parse_manifest(document: Any, where: str) -> Manifest:
    """The keys and values of dataset.yaml as a Manifest; `where` is what errors call it.

    Raises:
        DataError: lists every problem with its place.
    """
    if not isinstance(document, dict):
        raise DataError(f"{where}: must hold the keys name, classes, subsets and grid; see docs/data.md")
    try:
        return Manifest.model_validate(document)
    except ValidationError as error:
        raise DataError(f"{where}: " + listing(problems_of(error))) from None


def read_manifest(root: Path) -> Manifest:
    """dataset.yaml.

    Raises:
        DataError: missing or malformed; every problem is listed with its place.
    """
    path = root / "dataset.yaml"
    if not path.exists():
        raise DataError(f"{path}: missing; see docs/data.md, or import a dataset with `tad import`")
    return parse_manifest(read_yaml(path), str(path))


def problems_of(error: ValidationError) -> list[str]:
    """Place and text of every problem, in our words."""
    found = []
    for one in error.errors():
        text, value = one["msg"].removeprefix("Value error, "), one["input"]
        if one["type"] == "string_type" and not isinstance(value, (list, dict)):
            text += f", not {shortened(value)}; put it in quotes"
        elif one["type"] in ("greater_than_equal", "less_than_equal", "finite_number", "float_parsing"):
            text += f", not {shortened(value)}"
        found.append(f"{'.'.join(map(str, one['loc']))}: {text}")
    return found
