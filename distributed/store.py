"""Artifacts under fingerprints: what is finished is never run again, what is half-written is never read.

STORE/FINGERPRINT/            finished: meta.json and the stage's files
STORE/FINGERPRINT.partial/    in progress: checkpoints and parts, from which the same command resumes
STORE/FINGERPRINT.lock        held by the process that computes it; others wait
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock

from tad.errors import RunError
from tad.stage import Artifact


def fingerprint(parts: Mapping[str, Any]) -> str:
    """Hash of everything that determines an artifact: stage, version, config, inputs, dataset, seed."""
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:24]


class Store:
    """A folder of artifacts, on a file system that all workers see.

    Raises:
        RunError: the folder cannot be made or written.
    """

    def __init__(self, root: Path | str) -> None:
        self.root = Path(root).expanduser().resolve()
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile(dir=self.root):
                pass
        except OSError as error:
            raise RunError(f"{self.root}: the artifact store cannot be written: {error}") from error

    def find(self, key: str) -> Artifact | None:
        """The finished artifact, or None."""
        path = self.root / key
        return Artifact(key, path) if (path / "meta.json").is_file() else None

    def meta(self, key: str) -> dict[str, Any]:
        """What made a finished artifact: stage, config, inputs, MLflow run, wall-clock."""
        meta: dict[str, Any] = json.loads((self.root / key / "meta.json").read_text())
        return meta

    def partial(self, key: str) -> Path:
        """The folder in which an artifact is being made; what an earlier attempt left is still there."""
        path = self.root / f"{key}.partial"
        path.mkdir(exist_ok=True)
        return path

    def commit(self, key: str, meta: Mapping[str, Any], keep: list[str]) -> Artifact:
        """Makes a partial artifact final: only the files and folders in `keep` stay, and meta.json.

        The rename is the last act, so a killed process leaves either the whole artifact or a partial one.
        """
        partial, final = self.root / f"{key}.partial", self.root / key
        for entry in partial.iterdir():
            if entry.name not in keep:
                shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
        write_json(partial / "meta.json", dict(meta))
        partial.rename(final)
        return Artifact(key, final)

    @contextmanager
    def lock(self, key: str) -> Iterator[None]:
        """Held while an artifact is looked up or made: of two processes that need it one computes, one waits."""
        with FileLock(self.root / f"{key}.lock"):
            yield


def write_json(path: Path, document: Any) -> None:
    """Writes under a temporary name and renames, so a reader never sees half a file."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(json.dumps(document, indent=1))
    temporary.replace(path)
