"""Files behind a URI of pyarrow.fs: `s3://`, `gs://`, `file://`.

Credentials and endpoints come from the environment: the usual AWS variables, profile files and machine roles for
`s3://` (AWS_ENDPOINT_URL for another server than Amazon's), the application default credentials for `gs://`. A URI
that holds credentials or options is refused: it would be written into run folders and reports, and a URI of somebody
else could send requests, signed with the user's key, to any server.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
from pyarrow import fs

from tad.data.digests import CACHE_REMEDY, Stamp, cache_folder, digests
from tad.data.manifest import FEATURES
from tad.errors import DataError, first_line, shortened
from tad.files import beside, cause, is_path_below

UNKNOWN = 1 << 62
"""As a time of change it keeps a file from being remembered."""
BLOCK = 8 << 20
"""Bytes to ask a bucket for at a time."""
LOCAL = {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT, errno.ENOTDIR, errno.EEXIST, errno.EISDIR}
"""Errors of this machine's disk; those of a bucket have no such number."""
HINTS = {
    "NO_SUCH_BUCKET": "there is no such bucket; make it first, or mend its name",
    "not found. To create buckets": "there is no such bucket; make it first, or mend its name",
    "ACCESS_DENIED": "the credentials are refused; see AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_PROFILE",
    "INVALID_ACCESS_KEY_ID": "the access key is unknown; see AWS_ACCESS_KEY_ID, AWS_PROFILE",
    "INVALID_CLIENT_TOKEN_ID": "the access key is unknown; see AWS_ACCESS_KEY_ID, AWS_PROFILE",
    "SIGNATURE_DOES_NOT_MATCH": "the secret key is wrong; see AWS_SECRET_ACCESS_KEY, AWS_PROFILE",
    "EXPIRED_TOKEN": "the credentials have expired; log in again",
    "NETWORK_CONNECTION": "the server cannot be reached; see AWS_ENDPOINT_URL",
}

ENVIRONMENT = (
    "give credentials by AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, a profile (AWS_PROFILE) or the machine's role, "
    "and another server by AWS_ENDPOINT_URL"
)
NAMED_BY_USER = ("abfs", "abfss", "hdfs", "viewfs")
"""Schemes that write a container or a user, which are no secrets, before an `@`."""
_USER = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://(?=[^\s\"<>/?#]*[:@])[^\s\"<>]*@")
"""What may be user and password: up to the last `@`, since a password that nobody escaped may hold anything."""
_URI = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://[^\s\"<>]*[?#][^\s\"<>]*")


def is_uri(place: Path | str) -> bool:
    return "://" in str(place)


def checked(uri: str) -> str:
    """The URI itself, if it holds no credentials and no options.

    Raises:
        DataError: there is a user, a password, a query string or a fragment in it; the message does not show them.
    """
    scheme, _, rest = uri.partition("://")
    server, plain = re.split(r"[/?#]", rest, maxsplit=1)[0], re.split(r"[?#]", uri, maxsplit=1)[0]
    user, at, _ = server.rpartition("@")
    plain_user = (scheme in NAMED_BY_USER and ":" not in user) or (scheme, user) == ("gs", "anonymous")
    if (at and not plain_user) or (":" in server and scheme in ("s3", "gs", "gcs")):
        shown = re.split("[?#]", rest.rpartition("@")[2] if "@" in rest else "", maxsplit=1)[0]
        raise DataError(f"{scheme}://***@{shown}: a URI must not hold credentials; {ENVIRONMENT}")
    if plain != uri:
        raise DataError(f"{redacted(plain)}: a URI must not hold options after `?` or `#`; {ENVIRONMENT}")
    return uri


def redacted(text: str) -> str:
    """Text in which users, passwords, query strings and fragments of all URIs are `***`; the rest stays as it is."""
    return _URI.sub(_without_options, _USER.sub(_without_user, text)) if "://" in text else text


def _without_user(found: re.Match[str]) -> str:
    user = found[0].partition("://")[2]
    return found[0] if found[1] in NAMED_BY_USER and ":" not in user else f"{found[1]}://***@"


def _without_options(found: re.Match[str]) -> str:
    signs = "[?]" if found[1] in ("sqlite", "file") else "[?#]"  # the path of a file may hold `#`
    sign = re.search(signs, found[0])
    return found[0] if sign is None else f"{found[0][: sign.end()]}***"


def cache_of(uri: str) -> Path:
    """The folder in the cache that stands for a URI, on the server that is asked for it.

    Raises:
        DataError: there is no place for the cache.
    """
    name, server = uri.rstrip("/"), os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    if server and name.startswith("s3://"):
        name += f"\n{server.rstrip('/')}"
    return cache_folder() / hashlib.sha256(name.encode()).hexdigest()[:16]


def make_cache(folder: Path) -> None:
    """Makes a folder of the cache.

    Raises:
        DataError: it cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"{folder}: the cache cannot be written: {cause(error)}; {CACHE_REMEDY}") from None


def opened(uri: str) -> tuple[fs.FileSystem, str]:
    """The file system of a URI, and the path in it.

    Raises:
        DataError: as `checked`, not a URI that pyarrow.fs knows, or it cannot be used.
    """
    try:
        return fs.FileSystem.from_uri(checked(uri))
    except (OSError, ValueError, pa.ArrowException) as error:
        raise DataError(f"{uri}: {reason(error)}") from error


def reason(error: BaseException) -> str:
    """An error of pyarrow.fs in a short line, with what to do where that is known."""
    text = first_line(error, most=10_000).split(" (Request ID")[0]
    hint = next((hint for sign, hint in HINTS.items() if sign in text), None)
    return redacted(f"{hint} [{text}]" if hint else text)


def fetch(bucket: fs.FileSystem, source: str, target: Path, modified_ns: int) -> None:
    """Copies a file here under a temporary name and renames it, so no reader sees half of it.

    Raises:
        OSError: as pyarrow.fs has it.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = beside(target)
    try:
        fs.copy_files(source, str(temporary), source_filesystem=bucket)
        os.utime(temporary, ns=(modified_ns, modified_ns))
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)


def below(folder: Path, key: str) -> Path:
    """Where an object of a bucket lies in a folder here; keys of a bucket are anybody's text.

    Raises:
        DataError: as a path the key would lead out of the folder, or be none.
    """
    if not is_path_below(key):
        raise DataError(f"the object {shortened(key)} of the bucket cannot be a file below {folder}; remove it there")
    return folder / key


def _holds_features(folder: str) -> bool:
    """Whether a dataset's folder of this name holds feature files; which ones are read, dataset.yaml says."""
    return folder == FEATURES or folder.startswith(f"{FEATURES}-")


class RemoteFolder:
    """A dataset folder behind a URI and the cache of it here; each file is fetched once, and again when it changed.

    Raises:
        DataError: it cannot be listed, is empty, or holds an object whose name cannot be that of a file.
    """

    def __init__(self, uri: str) -> None:
        self.uri = uri.rstrip("/")
        self._bucket, self._prefix = opened(self.uri)
        self.here = cache_of(self.uri)
        top = self._listed("")
        self._files = {name: info for name, info in top.items() if info.is_file}
        for folder, info in top.items():
            if not info.is_file and _holds_features(folder):
                self._files |= {name: file for name, file in self._listed(folder).items() if file.is_file}

    def _listed(self, folder: str) -> dict[str, fs.FileInfo]:
        """What lies in a folder, by its path in the dataset."""
        try:
            found = self._bucket.get_file_info(fs.FileSelector(f"{self._prefix}/{folder}".rstrip("/")))
        except FileNotFoundError as error:
            raise DataError(f"{self.uri}: no such dataset: nothing is there") from error
        except OSError as error:
            raise DataError(f"{self.uri}: {reason(error)}") from error
        listed = {info.path.removeprefix(f"{self._prefix}/"): info for info in found}
        for name, info in listed.items():
            if info.is_file:
                below(self.here, name)
        return listed

    def fetch_small(self) -> None:
        """Everything but the features; what is gone there goes here, too."""
        make_cache(self.here)
        try:
            for path in self.here.iterdir():
                if path.is_file() and not path.name.startswith(".") and path.name not in self._files:
                    path.unlink(missing_ok=True)
        except OSError as error:
            raise DataError(f"{self.here}: the cache cannot be written: {cause(error)}; {CACHE_REMEDY}") from None
        for name in self._files:
            if "/" not in name:
                self.path(name)

    def fetch_features(self, progress: Callable[[Iterable[Path]], Iterable[Path]] = iter) -> None:
        """All feature files; what is gone there goes here, too.

        Args:
            progress: wraps the iteration over the files.
        """
        here = [folder for folder in self.here.iterdir() if folder.is_dir() and _holds_features(folder.name)]
        for old in (path for folder in here for path in folder.iterdir()):
            if f"{old.parent.name}/{old.name}" not in self._files and old.is_file():
                self.path(f"{old.parent.name}/{old.name}")
        for path in progress([self.here / name for name in self._files if "/" in name]):
            self.path(f"{path.parent.name}/{path.name}")

    def path(self, name: str) -> Path:
        """The file here, fetched if need be; a path without a file if there is none.

        Raises:
            DataError: it cannot be fetched.
        """
        target, info = below(self.here, name), self._files.get(name)
        try:
            if info is None:
                target.unlink(missing_ok=True)
            elif not self._is_current(target, info):
                fetch(self._bucket, info.path, target, info.mtime_ns or 0)
        except OSError as error:
            remedy = f"; {CACHE_REMEDY}" if error.errno in LOCAL else ""
            raise DataError(f"{self.uri}/{name}: cannot be fetched to {target}: {reason(error)}{remedy}") from error
        return target

    def __contains__(self, name: str) -> bool:
        return name in self._files

    def digests(self, names: Sequence[str]) -> dict[str, str]:
        """SHA-256 of each file, without fetching it; "" where there is none.

        Raises:
            DataError: a file cannot be read.
        """
        found = {name: info for name in names if (info := self._files.get(name)) is not None}
        stamps = {
            name: Stamp(f"{info.size} bytes, modified {info.mtime_ns}", info.mtime_ns or UNKNOWN)
            for name, info in found.items()
        }
        return dict.fromkeys(names, "") | digests(str(self.here), stamps, self._digest)  # of one server's files

    def _digest(self, name: str) -> str:
        digest = hashlib.sha256()
        with self._reader(name) as file:
            while block := file.read(BLOCK):
                digest.update(block)
        return digest.hexdigest()

    def front(self, name: str, size: int) -> tuple[bytes, int] | None:
        """The first bytes of a file, and its size in bytes, without fetching it; None if there is none."""
        if name not in self._files:
            return None
        with self._reader(name) as file:
            return file.read(size), self._files[name].size

    @contextmanager
    def _reader(self, name: str) -> Iterator[Any]:
        info = self._files[name]
        here = below(self.here, name)
        try:
            with here.open("rb") if self._is_current(here, info) else self._bucket.open_input_file(info.path) as file:
                yield file
        except OSError as error:
            raise DataError(f"{self.uri}/{name}: cannot be read: {reason(error)}") from error

    @staticmethod
    def _is_current(target: Path, info: fs.FileInfo) -> bool:
        try:
            found = target.stat()
        except (FileNotFoundError, NotADirectoryError):
            return False
        return found.st_size == info.size and found.st_mtime_ns == (info.mtime_ns or 0)
