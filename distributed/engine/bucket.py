"""The files of a store in a bucket. Names that a bucket lists are looked at before they become paths here."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from pyarrow import fs

from distributed.engine.disk import writing
from distributed.engine.seals import check_name
from tad.data.artifact import META
from tad.data.reading import in_threads
from tad.data.remote import fetch, opened, reason
from tad.errors import DataError, RunError

Made = TypeVar("Made")


@dataclass(frozen=True)
class Bucket:
    """A folder of a bucket. All its methods raise RunError when it cannot be reached."""

    uri: str
    files: fs.FileSystem
    prefix: str

    @classmethod
    def open(cls, uri: str) -> Bucket:
        """Raises RunError: no URI of pyarrow.fs, it holds credentials, or there is no such bucket."""
        try:
            files, prefix = opened(uri)
        except DataError as error:
            raise RunError(f"the artifact store cannot be used: {error}") from error
        bucket = cls(uri, files, prefix)
        bucket._writing(lambda: files.create_dir(prefix, recursive=True))
        return bucket

    def listed(self, folder: str) -> dict[str, fs.FileInfo]:
        """The files below a folder by their names in it; none if it is not there.

        Raises:
            RunError: also when a name would leave the folder, or no file can have it.
        """
        there = f"{self.prefix}/{folder}"
        found = self._reading(
            lambda: self.files.get_file_info(fs.FileSelector(there, allow_not_found=True, recursive=True))
        )
        named = {info.path.removeprefix(f"{there}/"): info for info in found if info.is_file}
        for name in named:
            check_name(name, f"{self.uri}/{folder}")
        return named

    def folders(self) -> list[str]:
        """Names of the folders at the top."""
        found = self._reading(lambda: self.files.get_file_info(fs.FileSelector(self.prefix, allow_not_found=True)))
        return sorted(info.base_name for info in found if not info.is_file)

    def download(self, files: dict[str, fs.FileInfo], folder: Path) -> None:
        """Copies listed files to a folder here."""

        def copy(name: str) -> None:
            info = files[name]
            fetch(self.files, info.path, folder / name, info.mtime_ns or 0)

        with writing(folder):
            self._reading(lambda: in_threads(copy, files))

    def read(self, name: str) -> bytes | None:
        """The content of one file, or None if there is none."""

        def content() -> bytes | None:
            try:
                with self.files.open_input_file(f"{self.prefix}/{name}") as file:
                    return bytes(file.read())
            except FileNotFoundError:
                return None

        return self._reading(content)

    def upload(self, folder: Path, target: str, names: list[str]) -> None:
        """Copies files of a folder here to a folder there; the last when the others are there."""
        if not names:
            return

        def copy(name: str) -> None:  # one by one: pyarrow's own threads can lock each other out when they upload
            fs.copy_files(
                str(folder / name),
                f"{self.prefix}/{target}/{name}",
                source_filesystem=fs.LocalFileSystem(),
                destination_filesystem=self.files,
                use_threads=False,
            )

        def send() -> None:
            for parent in {Path(target, name).parent.as_posix() for name in names}:
                self.files.create_dir(f"{self.prefix}/{parent}", recursive=True)
            in_threads(copy, names[:-1])
            copy(names[-1])

        self._writing(send)

    def set_aside(self, folder: str) -> str:
        """Moves a damaged folder to FOLDER.damaged-N and returns that name; a bucket has no renaming, so it copies."""
        number = 1
        while self.listed(f"{folder}.damaged-{number}"):
            number += 1
        aside = f"{folder}.damaged-{number}"

        def move() -> None:
            for name, info in self.listed(folder).items():
                target = f"{self.prefix}/{aside}/{name}"
                self.files.create_dir(target.rpartition("/")[0], recursive=True)
                self.files.copy_file(info.path, target)
            self.files.delete_dir(f"{self.prefix}/{folder}")

        self._writing(move)
        return aside

    def remove(self, names: Iterable[str]) -> None:
        """Removes files, so that they are made again."""
        for name in names:
            with suppress(FileNotFoundError):
                self.files.delete_file(f"{self.prefix}/{name}")

    def delete(self, folder: str) -> None:
        """Removes a folder; its meta.json first, so that nobody takes the rest for an artifact."""

        def work() -> None:
            with suppress(FileNotFoundError):
                self.files.delete_file(f"{self.prefix}/{folder}/{META}")
            with suppress(FileNotFoundError):  # where a folder is only its files' prefix, it may be gone with the last
                self.files.delete_dir(f"{self.prefix}/{folder}")

        self._writing(work)

    def clear(self, folder: str) -> None:
        """Removes a folder that is needed no more."""
        with suppress(OSError):  # what is left does no harm
            self.files.delete_dir(f"{self.prefix}/{folder}")

    def _reading(self, work: Callable[[], Made]) -> Made:
        try:
            return work()
        except OSError as error:
            raise RunError(f"{self.uri}: cannot be read: {reason(error)}") from error

    def _writing(self, work: Callable[[], Made]) -> Made:
        try:
            return work()
        except OSError as error:
            raise RunError(f"{self.uri}: the artifact store cannot be written: {reason(error)}") from error
