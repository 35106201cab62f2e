"""What the command line says of an error that nobody foresaw: one sentence, and where the traceback is."""

from __future__ import annotations

import errno
import os
import sys
import tempfile
import traceback

from tad.errors import printable

FULL = "make room, then run the same command again: what was finished is kept"
REMEDIES = {
    errno.ENOSPC: f"the disk is full; {FULL}",
    errno.EDQUOT: f"your quota of the disk is used up; {FULL}",
    errno.EFBIG: "the file would be larger than is allowed here (`ulimit -f`)",
    errno.EROFS: "the file system is read-only; choose another place (--out, --store, --tracking, TMPDIR)",
    errno.EACCES: "you may not read or write it; mend its permissions, or choose another place",
    errno.EPERM: "you may not do that there; choose another place",
    errno.ENAMETOOLONG: "the name is too long",
    errno.EISDIR: "is a folder, and a file is needed",
    errno.ENOTDIR: "lies below a file, and a folder is needed",
    errno.EEXIST: "is there already, and is no folder",
    errno.ENOENT: "is gone, or was never there",
    errno.EMFILE: "too many files are open; raise the limit (`ulimit -n 65536`)",
    errno.ENFILE: "too many files are open on this machine",
    errno.EIO: "the disk or the network file system fails",
    errno.ESTALE: "the network file system has lost it; run the same command again",
    errno.ENOMEM: "the memory is not enough",
}
"""What an error of the operating system means here."""


def report(error: BaseException) -> str:
    """The sentence; the traceback is written into a file that only the user can read."""
    told = sentence(error)
    path = write(error)
    where = f"traceback: {path}" if path is not None else "TAD_TRACEBACK=1 shows the traceback"
    return f"{told} ({where})"


def sentence(error: BaseException) -> str:
    """What went wrong, in one line."""
    if isinstance(error, OSError) and error.errno in REMEDIES:
        named = f"{os.fsdecode(error.filename)}: " if isinstance(error.filename, (str, bytes)) else ""
        return shown(f"{named}{REMEDIES[error.errno]}")
    first = next(iter(str(error).splitlines()), "")[:300]
    kind = type(error).__name__
    if isinstance(error, MemoryError):
        return shown(f"the memory is not enough{': ' + first if first else ''}")
    if kind == "OutOfMemoryError":  # torch's; it is no MemoryError
        return shown(f"the memory of the GPU is not enough; lower the stage's batch_size: {first}")
    if "PytorchStreamWriter" in first or ("inline_container" in first and "unexpected pos" in first):
        return f"a model could not be written whole: is the disk full? If so, {FULL}"
    if isinstance(error, RecursionError):
        return "a value is nested too deeply; a file that was read is not of its kind"
    if isinstance(error, RuntimeError) and "home directory" in first:
        return "there is no home folder; set HOME to a folder that can be written"
    return shown(f"unexpected {kind}{': ' + first if first else ''}; this is a fault of tad, or of a file that it read")


def shown(text: str) -> str:
    """Text for the terminal: no control characters, no passwords."""
    if "://" in text:
        from tad.data.remote import redacted  # heavy, and needed only here

        text = redacted(text)
    return printable(text)


def write(error: BaseException) -> str | None:
    """Writes the traceback into a private file of the temporary folder; None if that fails, too."""
    text = "".join(traceback.format_exception(error))
    try:
        handle, path = tempfile.mkstemp(prefix="tad-crash-", suffix=".txt")  # mode 0600
        with os.fdopen(handle, "w", encoding="utf-8", errors="backslashreplace") as file:
            file.write(shown(f"{' '.join(sys.argv)}\n\n{text}"))
    except Exception:  # the disk may be full, which is what is told
        return None
    return path
