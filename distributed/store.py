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
from pyarrow import fs

from tad.data.remote import is_uri, opened, reason, work_of
from tad.errors import DataError, RunError
from tad.stage import Artifact


def fingerprint(parts: Mapping[str, Any]) -> str:
    """Hash of everything that determines an artifact: stage, version, config, inputs, dataset, seed."""
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:24]


class Store:
    """Artifacts in a folder, or in a bucket (`s3://`, `gs://` or another URI of pyarrow.fs) with a folder in front.

    With a bucket, finished artifacts are uploaded and, where they are missing here, downloaded; work in progress stays
    in the folder in front: TAD_WORK, or TAD_CACHE, or ~/.cache/tad-selftrain. It must be one that all workers see.

    Raises:
        RunError: the folder cannot be made or written, or the bucket cannot be reached.
    """

    def __init__(self, root: Path | str) -> None:
        self.uri = str(root)
        self._bucket: fs.FileSystem | None = None
        if is_uri(self.uri):
            self.root = work_of(self.uri)
        else:
            self.root = Path(root).expanduser().resolve()
            self.uri = str(self.root)
        try:
            if is_uri(self.uri):
                self._bucket, self._prefix = opened(self.uri)
                self._bucket.create_dir(self._prefix, recursive=True)
            self.root.mkdir(parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile(dir=self.root):
                pass
        except DataError as error:
            raise RunError(f"the artifact store cannot be used: {error}") from error
        except OSError as error:
            raise RunError(f"{self.uri}: the artifact store cannot be written: {reason(error)}") from error

    def find(self, key: str) -> Artifact | None:
        """The finished artifact, or None; fetched from the bucket if it is only there."""
        path = self.root / key
        if not (path / "meta.json").is_file() and self._bucket is not None:
            self._download(key, path)
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
        if self._bucket is not None:
            fs.copy_files(str(partial), f"{self._prefix}/{key}", destination_filesystem=self._bucket)
        write_json(partial / "meta.json", dict(meta))
        if self._bucket is not None:  # after all the rest: an artifact in the bucket is whole once it has a meta.json
            target = f"{self._prefix}/{key}/meta.json"
            fs.copy_files(str(partial / "meta.json"), target, destination_filesystem=self._bucket)
        partial.rename(final)
        return Artifact(key, final)

    def _download(self, key: str, path: Path) -> None:
        assert self._bucket is not None
        if self._bucket.get_file_info(f"{self._prefix}/{key}/meta.json").type == fs.FileType.NotFound:
            return
        with tempfile.TemporaryDirectory(dir=self.root) as folder:
            whole = Path(folder, "whole")
            whole.mkdir()  # pyarrow makes the folders that it finds below, and a bucket has none
            fs.copy_files(f"{self._prefix}/{key}", str(whole), source_filesystem=self._bucket)
            try:
                whole.rename(path)
            except OSError:  # somebody else was quicker
                if not (path / "meta.json").is_file():
                    raise

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
