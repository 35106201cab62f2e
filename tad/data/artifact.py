"""A finished stage's output: a folder of the store, read with errors that name the store and not the videos."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tad.data import arrays
from tad.data.segments import Segments
from tad.data.segments_by_video import SegmentsByVideo
from tad.errors import DamagedError, DataError, RunError, first_line
from tad.files import cause, read_json

META = "meta.json"
"""What made an artifact, and under `files` the size and SHA-256 of each of its files. It is written last."""

SEGMENTS = "segments.parquet"


@dataclass(frozen=True)
class Artifact:
    """A finished stage's output: a folder, under the fingerprint of everything that made it.

    What cannot be read is set aside, so that the next run makes it again.

    Raises:
        DamagedError: a file is not what the stage wrote.
        RunError: a file cannot be read now, for instance for want of permission.
    """

    fingerprint: str
    path: Path

    def segments(self) -> Segments:
        """All rows at once; `by_video` needs less memory."""
        try:
            return Segments.from_parquet(self.path / SEGMENTS)
        except Exception as error:
            raise self._problem(SEGMENTS, error) from error

    def by_video(self) -> SegmentsByVideo:
        """The segments of each video, which are read when they are asked for."""
        failed = partial(self._problem, SEGMENTS)
        try:
            return SegmentsByVideo(self.path / SEGMENTS, failed)
        except Exception as error:
            raise failed(error) from error

    def array(self, key: str, video_id: str) -> np.ndarray:
        """A per-video array of a map stage with output "arrays", read-only; memory-mapped unless it is small.

        Raises:
            FileNotFoundError: the stage made none for this video.
        """
        name = arrays.INDEX
        try:
            place = arrays.find(self.path, key, video_id)
            name = place.file
            return arrays.read(self.path, place)
        except Exception as error:
            if isinstance(error, FileNotFoundError):
                listed = self._listed()
                names = (name, f"{key}/{video_id}.npy")
                lost = [n for n in names if n in listed and not (self.path / n).exists()]
                if not lost:
                    raise
                name = lost[0]
            raise self._problem(name, error) from error

    def model(self) -> dict[str, Any]:
        """What a fit stage saved: {"state": state dict, "settings": dict of plain values}."""
        try:
            with saved(self.path / "model.pt"):
                pass
            found: dict[str, Any] = torch.load(self.path / "model.pt", map_location="cpu", weights_only=True)
            if not isinstance(found, dict) or not {"state", "settings"} <= found.keys():
                raise ValueError("it holds no model of this project")
            return found
        except Exception as error:  # also EOFError of an empty file, which click would take for Ctrl-D
            raise self._problem("model.pt", error) from error

    def _listed(self) -> dict[str, str]:
        try:
            return dict(read_json(self.path / META)["files"])
        except (DataError, KeyError, TypeError, ValueError):  # gone, damaged, or made before there were digests
            return {}

    def _problem(self, name: str, error: Exception) -> Exception:
        """What to raise: the store's fault, or one that may pass."""
        if isinstance(error, MemoryError):
            return error
        origin = error.__cause__ if isinstance(error, DataError) else error
        if isinstance(origin, OSError) and origin.errno and not isinstance(origin, FileNotFoundError):
            return RunError(f"{self.path / name}: cannot be read: {cause(origin)}")
        return damaged(self.path, f"{name}: {first_line(error)}")


@contextmanager
def saved(path: Path) -> Iterator[zipfile.ZipFile]:
    """The archive that torch saved; a few compressed bytes of somebody else would become more than the memory holds.

    Raises:
        ValueError: it is compressed, as torch never does.
        zipfile.BadZipFile: it is no archive.
    """
    with zipfile.ZipFile(path) as archive:
        if any(entry.compress_type != zipfile.ZIP_STORED for entry in archive.infolist()):
            raise ValueError("it is compressed, as no training writes it")
        yield archive


def damaged(path: Path, problem: str, of: Path | None = None) -> DamagedError:
    """Sets a damaged artifact or part aside, as `set_aside`; the error that says so."""
    try:
        then = f"it was moved to {set_aside(path, of).name}"
    except FileNotFoundError:
        then = "it is gone"
    except OSError as error:
        then = f"it cannot be moved away ({cause(error)}): remove it"
    return DamagedError(f"{path}: damaged in the store: {problem}; {then}. Run the same command again to make it again")


def set_aside(path: Path, of: Path | None = None) -> Path:
    """Renames what is damaged or in the way, to NAME.damaged-1 or the next free number. Nothing is removed.

    Args:
        of: a folder that will not stay, in which the path lies; it is then moved beside that.

    Raises:
        OSError: it is gone, or the folder cannot be written.
    """
    base = path if of is None else of.with_name(f"{of.name}.{path.name}")
    number = 1
    while os.path.lexists(aside := base.with_name(f"{base.name}.damaged-{number}")):
        number += 1
    os.rename(path, aside)
    return aside
