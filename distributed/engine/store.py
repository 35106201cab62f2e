"""Artifacts under fingerprints: what is finished is never run again, what is half-written or damaged is never read.

STORE/FINGERPRINT/             finished: meta.json and the stage's files; read without a lock
STORE/FINGERPRINT.partial/     in progress (distributed/engine/unfinished.py); the same command resumes from it
STORE/FINGERPRINT.lock         held by the process that makes it (distributed/engine/locks.py)
STORE/FINGERPRINT.damaged-1    set aside: not what was written there
STORE/.runs/                   who needs what (distributed/engine/uses.py)
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from distributed.engine.bucket import Bucket
from distributed.engine.disk import writing
from distributed.engine.locks import Tell, held, note
from distributed.engine.seals import checked_meta, odd, problem, read_meta, remember, sealed
from distributed.engine.unfinished import OUTPUT, SUFFIX, Partial, make_folder
from tad.data.artifact import META, Artifact, set_aside
from tad.data.remote import cache_of, is_uri, make_cache
from tad.errors import DataError, RunError
from tad.files import cause, parse_json, sync, write_json
from tad.stages import Context

KEY = re.compile(r"[0-9a-f]{24}")


def fingerprint(parts: Mapping[str, Any]) -> str:
    """Hash of everything that determines an artifact: stage, version, config, inputs, dataset, seed."""
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:24]


class Store:
    """Artifacts in a folder, or in a bucket (`s3://`, `gs://` or another URI of pyarrow.fs) with a folder in front.

    With a bucket, all that is made is uploaded, work in progress too, and downloaded where it is missing; the folder
    in front, in TAD_CACHE or ~/.cache/tad-selftrain, is each machine's own. Pickles as its URI. Finished artifacts are
    found without writing anything; the folder need not be writable until one is made.

    Raises:
        RunError: the folder cannot be made, or the bucket cannot be reached.
        DataError: the folder in front of the bucket cannot be made.
    """

    def __init__(self, root: Path | str) -> None:
        self.uri = str(root)
        self.bucket: Bucket | None = None
        if is_uri(self.uri):
            self.bucket = Bucket.open(self.uri)
            self.root = cache_of(self.uri)
            make_cache(self.root)
            return
        try:
            self.root = Path(root).expanduser().resolve()
            self.uri = str(self.root)
            self.root.mkdir(parents=True, exist_ok=True)
        except (OSError, RuntimeError) as error:  # RuntimeError: no such user or home folder, a loop of links
            raise RunError(f"{root}: the artifact store cannot be written: {cause(error)}; choose a --store") from error

    def __reduce__(self) -> Any:
        return Store, (self.uri,)

    def find(self, key: str) -> Artifact | None:
        """The finished artifact, or None if there is none that is whole; fetched from the bucket if need be.

        Raises:
            RunError: `key` is no fingerprint, or the artifact may not be read.
        """
        return Artifact(key, self._path(key)) if self._problem(key) is None else None

    def require(self, key: str) -> Artifact:
        """The finished artifact.

        Raises:
            RunError: there is none, or it is damaged; the message says which.
        """
        if (wrong := self._problem(key)) is not None:
            raise RunError(f"{self.uri}: the artifact {key} {wrong}; run the command again that made it")
        return Artifact(key, self._path(key))

    def meta(self, key: str) -> dict[str, Any]:
        """What made a finished artifact: stage, config, inputs, MLflow run, wall-clock; empty if there is none.

        The artifact itself is neither checked nor fetched.
        """
        path = self._path(key)
        try:
            if self.bucket is None or (path / META).is_file():
                return read_meta(path)
            content = self.bucket.read(f"{key}/{META}")
            name = f"{self.uri}/{key}/{META}"
            return checked_meta(parse_json(content.decode(), name), name) if content is not None else {}
        except (DataError, UnicodeDecodeError):
            return {}

    def here(self, context: Context) -> Context:
        """What a stage may read, as this machine has it: inputs that are only in the bucket are fetched.

        Raises:
            RunError: an input is gone.
        """
        if self.bucket is None:
            return context
        inputs = {name: self.require(artifact.fingerprint) for name, artifact in context.inputs.items()}
        return replace(context, inputs=inputs)

    @contextmanager
    def lock(self, key: str, what: str, tell: Tell = note) -> Iterator[None]:
        """Held while an artifact is made: of two processes that need it one computes, one waits and says so."""
        with held(self._path(key).with_suffix(".lock"), f"{what} ({key})", tell):
            yield

    def partial(self, key: str, tell: Tell = note) -> Partial:
        """Where an artifact is made; what an earlier attempt left is still there, or fetched from the bucket.

        Call it under the lock, and when `find` found nothing: what is then in the artifact's place is damaged, and is
        set aside with a line that says so.
        """
        final = self._path(key)
        folder = final.with_name(f"{key}{SUFFIX}")
        with writing(self.root):
            if os.path.lexists(final):
                wrong = problem(final)
                tell(f"{final}: damaged: {wrong}; it was moved to {set_aside(final).name} and is made again")
            if os.path.lexists(folder):
                strange = "is no folder" if folder.is_symlink() or not folder.is_dir() else odd(folder)
                if strange is not None:
                    tell(f"{folder}: {strange}; it was moved to {set_aside(folder).name}")
            if self.bucket is not None and self.bucket.read(f"{key}/{META}") is not None:
                aside = self.bucket.set_aside(key)
                tell(f"{self.uri}/{key}: damaged; it was moved to {aside} and is made again")
            make_folder(folder)
            make_folder(folder / OUTPUT)
        partial = Partial(self, key, folder)
        partial.receive()
        return partial

    def commit(self, key: str, meta: Mapping[str, Any]) -> Artifact:
        """Makes the output of a partial artifact final, with meta.json.

        The output gets its name when it is whole and on the disk; what it was made from goes after that. So a killed
        process leaves either the artifact or all that is needed to go on.
        """
        final = self._path(key)
        partial = Partial(self, key, final.with_name(f"{key}{SUFFIX}"))
        with writing(self.root):
            for left in list(partial.output.rglob(".*")):  # half a file of a writer that was killed
                shutil.rmtree(left) if left.is_dir() else left.unlink(missing_ok=True)
            (partial.output / META).unlink(missing_ok=True)
            files = sealed(partial.output)
            write_json(partial.output / META, {**meta, "files": files})
            if self.bucket is not None:  # an artifact in the bucket is whole once it has a meta.json
                self.bucket.upload(partial.output, key, [*files, META])
            sync(partial.output)
            try:
                partial.output.rename(final)
            except OSError:  # another machine, which sees no lock of this one, was quicker
                if problem(final) is not None:
                    raise
            sync(self.root)
            remember(final)
        partial.clear()
        shutil.rmtree(partial.folder, ignore_errors=True)
        return Artifact(key, final)

    def discard(self, key: str) -> None:
        """Removes a finished artifact that nobody else needs, under its lock."""
        with writing(self.root):
            shutil.rmtree(self._path(key))
            self._path(key).with_suffix(".lock").unlink(missing_ok=True)
            if self.bucket is not None:
                self.bucket.delete(key)

    def _path(self, key: str) -> Path:
        if not isinstance(key, str) or not KEY.fullmatch(key):
            raise RunError(f"{key!r}: not the name of an artifact: 24 digits of 0-9 and a-f")
        return self.root / key

    def _problem(self, key: str) -> str | None:
        """Why there is no artifact to be used, or None."""
        path = self._path(key)
        if os.path.lexists(path):
            wrong = problem(path)
            wrong = wrong and f"is damaged: {wrong}"
        else:
            wrong = "is not there"
        return self._download(key, path) if wrong and self.bucket is not None else wrong

    def _download(self, key: str, path: Path) -> str | None:
        """Fetches an artifact from the bucket; why it cannot be had, or None."""
        assert self.bucket is not None
        files = self.bucket.listed(key)
        if META not in files:
            return "is not there"
        with held(self.root / f"{key}.fetch", f"the download of {key}"), self._fresh(key) as folder:
            if os.path.lexists(path) and problem(path) is None:  # another process of this machine was quicker
                return None
            whole = folder / "whole"
            whole.mkdir()
            self.bucket.download(files, whole)
            if (wrong := problem(whole)) is not None:
                return f"is damaged: {wrong}"
            if os.path.lexists(path):
                note(f"{path}: damaged; it was moved to {set_aside(path).name} and fetched again")
            with suppress(OSError):  # it was finished here meanwhile
                whole.rename(path)
        if (wrong := problem(path)) is None:
            shutil.rmtree(self.root / f"{key}{SUFFIX}", ignore_errors=True)  # of an attempt that another one finished
        return wrong

    @contextmanager
    def _fresh(self, key: str) -> Iterator[Path]:
        """A passing folder to fetch to, under the lock of fetching; those of killed processes are removed."""
        for old in self.root.glob(f".fetch-{key}-*"):
            shutil.rmtree(old, ignore_errors=True)
        with writing(self.root), tempfile.TemporaryDirectory(prefix=f".fetch-{key}-", dir=self.root) as folder:
            yield Path(folder)
