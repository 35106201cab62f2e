"""Room on the disk: looked for before much is written, and told in one sentence when there is none."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tad.errors import RunError
from tad.files import cause, lack_of_room
from tad.words import size

REMEDIES = {
    errno.ENOSPC: "free some, or choose another --store",
    errno.EDQUOT: "your quota is used up: free some, or choose another --store",
    errno.EFBIG: "files may not be so large here; see `ulimit -f`",
    errno.EIO: "the disk or the network file system fails; see the system's log",
    errno.ENOENT: "was the store moved or removed meanwhile? Bring it back, or let it be made again",
    errno.EROFS: "choose a --store that can be written",
    errno.EACCES: "choose a --store that you may write, or ask its owner for the right to",
    errno.EPERM: "choose a --store that you may write, or ask its owner for the right to",
}
FULL = ("unexpected pos", "PytorchStreamWriter", "file write failed", " written")
"""Of torch's and NumPy's errors when the disk takes less than it was given; they have no number."""


@contextmanager
def writing(place: Path) -> Iterator[None]:
    """Names the place and the remedy when what is done inside cannot be written.

    Raises:
        RunError: a full disk, a quota, a limit of file sizes, a failing disk, no right to write.
    """
    try:
        yield
    except OSError as error:
        number = error.errno or (errno.ENOSPC if any(sign in str(error) for sign in FULL) else None)
        if number not in REMEDIES:
            raise
        raise RunError(_sentence(place, cause(error), REMEDIES[number])) from error
    except RuntimeError as error:
        if isinstance(error, RunError) or not any(sign in str(error) for sign in FULL):
            raise
        raise RunError(_sentence(place, "not all of a file was taken", REMEDIES[errno.ENOSPC])) from error


def need(place: Path, count: float, what: str) -> None:
    """Ends what is about to begin if it needs more bytes than are free.

    Raises:
        RunError: names what needs how much, and how much there is.
    """
    if (lack := lack_of_room(place, count)) is not None:
        raise RunError(
            f"{place}: {what} {lack}; {REMEDIES[errno.ENOSPC]}. "
            "What is finished stays, and the same command goes on from here"
        )


def _sentence(place: Path, problem: str, remedy: str) -> str:
    try:
        usage = shutil.disk_usage(place if os.path.isdir(place) else place.parent)
        room = f" ({size(usage.free)} of {size(usage.total)} are free)"
    except OSError:
        room = ""
    return f"{place}: cannot be written: {problem}{room}; {remedy}. The same command goes on from what is there"
