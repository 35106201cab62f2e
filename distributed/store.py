"""Artifacts under fingerprints: what is finished is never run again, what is half-written is never read.

STORE/FINGERPRINT/            finished: meta.json and the stage's files
STORE/FINGERPRINT.partial/    in progress: checkpoints and parts, from which the same command resumes
STORE/FINGERPRINT.lock        held by the process that computes it; others wait, if they see the same folder
"""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from filelock import FileLock
from pyarrow import fs

from distributed.partial import SUFFIX, THREADS, Partial
from tad.data.remote import cache_of, is_uri, opened, reason
from tad.errors import DataError, RunError
from tad.files import write_json
from tad.stage import Artifact, Context


def fingerprint(parts: Mapping[str, Any]) -> str:
    """Hash of everything that determines an artifact: stage, version, config, inputs, dataset, seed."""
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:24]


class Store:
    """Artifacts in a folder, or in a bucket (`s3://`, `gs://` or another URI of pyarrow.fs) with a folder in front.

    With a bucket, all that is made is uploaded, work in progress too, and downloaded where it is missing; the folder
    in front, in TAD_CACHE or ~/.cache/tad-selftrain, is each machine's own. Pickles as its URI.

    Raises:
        RunError: the folder cannot be made or written, or the bucket cannot be reached.
    """

    def __init__(self, root: Path | str) -> None:
        self.uri = str(root)
        self.bucket: fs.FileSystem | None = None
        if is_uri(self.uri):
            self.root = cache_of(self.uri)
        else:
            self.root = Path(root).expanduser().resolve()
            self.uri = str(self.root)
        try:
            if is_uri(self.uri):
                self.bucket, self.prefix = opened(self.uri)
                self.bucket.create_dir(self.prefix, recursive=True)
            self.root.mkdir(parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile(dir=self.root):
                pass
        except DataError as error:
            raise RunError(f"the artifact store cannot be used: {error}") from error
        except OSError as error:
            raise RunError(f"{self.uri}: the artifact store cannot be written: {reason(error)}") from error

    def __reduce__(self) -> Any:
        return Store, (self.uri,)

    def find(self, key: str) -> Artifact | None:
        """The finished artifact, or None; fetched from the bucket if it is only there."""
        path = self.root / key
        if not (path / "meta.json").is_file() and self.bucket is not None:
            self._download(key, path)
        return Artifact(key, path) if (path / "meta.json").is_file() else None

    def meta(self, key: str) -> dict[str, Any]:
        """What made a finished artifact: stage, config, inputs, MLflow run, wall-clock."""
        meta: dict[str, Any] = json.loads((self.root / key / "meta.json").read_text())
        return meta

    def here(self, context: Context) -> Context:
        """What a stage may read, as this machine has it: inputs that are only in the bucket are fetched.

        Raises:
            RunError: an input is gone.
        """
        if self.bucket is None:
            return context
        inputs: dict[str, Artifact] = {}
        for name, artifact in context.inputs.items():
            found = self.find(artifact.fingerprint)
            if found is None:
                raise RunError(f"{self.uri}: the input {name}, {artifact.fingerprint}, is gone; run the command again")
            inputs[name] = found
        return replace(context, inputs=inputs)

    def partial(self, key: str) -> Partial:
        """Where an artifact is made; what an earlier attempt left is still there, or fetched from the bucket."""
        path = self.root / f"{key}{SUFFIX}"
        path.mkdir(exist_ok=True)
        partial = Partial(self, key, path)
        partial.receive()
        return partial

    def commit(self, key: str, meta: Mapping[str, Any], keep: list[str]) -> Artifact:
        """Makes a partial artifact final: only the files and folders in `keep` stay, and meta.json.

        The rename is the last act, so a killed process leaves either the whole artifact or a partial one.
        """
        partial, final = Partial(self, key, self.root / f"{key}{SUFFIX}"), self.root / key
        for entry in partial.folder.iterdir():
            if entry.name not in keep:
                shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
        names = [str(path.relative_to(partial.folder)) for path in partial.folder.rglob("*") if path.is_file()]
        write_json(partial.folder / "meta.json", dict(meta))
        self.upload(partial.folder, key, [*names, "meta.json"])  # an artifact in the bucket is whole once it has one
        partial.clear()
        partial.folder.rename(final)
        return Artifact(key, final)

    def upload(self, folder: Path, target: str, names: list[str]) -> None:
        """Copies files of a folder to a folder of the bucket, if there is one; the last when the others are there.

        Raises:
            RunError: the bucket cannot be written.
        """
        if self.bucket is None or not names:
            return

        def copy(name: str) -> None:  # one by one: pyarrow's own threads can lock each other out when they upload
            fs.copy_files(
                str(folder / name),
                f"{self.prefix}/{target}/{name}",
                source_filesystem=fs.LocalFileSystem(),
                destination_filesystem=self.bucket,
                use_threads=False,
            )

        try:
            for parent in {Path(target, name).parent.as_posix() for name in names}:
                self.bucket.create_dir(f"{self.prefix}/{parent}", recursive=True)
            with ThreadPoolExecutor(THREADS) as pool:
                list(pool.map(copy, names[:-1]))
            copy(names[-1])
        except OSError as error:
            raise RunError(f"{self.uri}: the artifact store cannot be written: {reason(error)}") from error

    def _download(self, key: str, path: Path) -> None:
        assert self.bucket is not None
        if self.bucket.get_file_info(f"{self.prefix}/{key}/meta.json").type == fs.FileType.NotFound:
            return
        with FileLock(self.root / f"{key}.fetch"), tempfile.TemporaryDirectory(dir=self.root) as folder:
            if (path / "meta.json").is_file():  # another process of this machine was quicker
                return
            whole = Path(folder, "whole")
            whole.mkdir()  # pyarrow makes the folders that it finds below, and a bucket has none
            fs.copy_files(f"{self.prefix}/{key}", str(whole), source_filesystem=self.bucket)
            try:
                whole.rename(path)
            except OSError:  # it was finished here meanwhile
                if not (path / "meta.json").is_file():
                    raise
        shutil.rmtree(self.root / f"{key}{SUFFIX}", ignore_errors=True)  # of an attempt that another machine finished

    @contextmanager
    def lock(self, key: str) -> Iterator[None]:
        """Held while an artifact is looked up or made: of two processes that need it one computes, one waits."""
        with FileLock(self.root / f"{key}.lock"):
            yield

