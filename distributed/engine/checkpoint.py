"""The checkpoint of a training: one file, of one format, however many workers train."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from distributed.engine.disk import writing
from distributed.engine.locks import Tell, note
from distributed.engine.unfinished import CHECKPOINT, Partial
from tad.data.artifact import saved, set_aside
from tad.errors import first_line
from tad.files import sync

State = dict[str, Any]
KEYS = {"module", "average", "optimiser", "scheduler", "settings", "history"}


@dataclass(frozen=True)
class Checkpoint:
    """Reads and writes a partial artifact's checkpoint; with a bucket, the bucket's."""

    partial: Partial
    tell: Tell = note

    def save(self, state: State) -> None:
        """Replaces the last one.

        Raises:
            RunError: it cannot be written.
        """
        save_whole(state, self.partial.folder / CHECKPOINT, CHECKPOINT)
        self.partial.send([CHECKPOINT])

    def load(self) -> State | None:
        """The last one, or None; one that is damaged is set aside."""
        path = self.partial.folder / CHECKPOINT
        try:
            with saved(path) as archive:  # torch does not look at the checksums that it writes
                if (bad := archive.testzip()) is not None:
                    raise ValueError(f"the checksum of {bad} differs")
            state = torch.load(path, map_location="cpu", weights_only=True)
            if not isinstance(state, dict) or not state.keys() >= KEYS:
                raise ValueError("it holds no training's state")
            return state
        except FileNotFoundError:
            return None
        except MemoryError:
            raise
        except Exception as error:
            self.set_aside(first_line(error))
            return None

    def set_aside(self, problem: str) -> None:
        """Moves one away that cannot be used, so that the training begins again."""
        path = self.partial.folder / CHECKPOINT
        with writing(path.parent):
            aside = set_aside(path, self.partial.folder)
        self.partial.forget([CHECKPOINT])
        self.tell(f"{path}: damaged: {problem}; it was moved to {aside.name}, and the training begins again")


def save_whole(document: Any, path: Path, name: str) -> None:
    """Saves with torch, whole or not at all. torch writes `name` into the file, so it must not change from run to run.

    Raises:
        RunError: it cannot be written.
    """
    with writing(path.parent), tempfile.TemporaryDirectory(prefix=".new-", dir=path.parent) as folder:
        temporary = Path(folder, name)
        torch.save(document, temporary)
        sync(temporary)
        temporary.replace(path)
        sync(path.parent)
