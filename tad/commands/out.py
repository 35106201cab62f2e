"""A file that a command writes at its end, looked at before the work begins."""

from __future__ import annotations

import tempfile
from pathlib import Path

from tad.errors import DataError, RunError
from tad.files import cause, regular


def file_to_write(out: Path) -> Path:
    """The path itself (of a link, where it leads), if a file can be written there; its folder is made.

    Raises:
        RunError: it is a folder, a pipe or a device, lies below a file, its folder cannot be made or written, or its
            name is too long.
    """
    try:
        out = out.expanduser().resolve()
        out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=out.parent):
            pass
        if _is_there(out):
            regular(out)
    except DataError as error:
        raise RunError(f"--out {error}; choose another") from error
    except (FileExistsError, NotADirectoryError) as error:
        raise RunError(f"--out {out}: cannot be written: it lies below a file; choose another") from error
    except (OSError, ValueError) as error:
        raise RunError(f"--out {out}: cannot be written: {cause(error)}; choose another") from error
    return out


def _is_there(path: Path) -> bool:
    try:
        path.lstat()
    except FileNotFoundError:
        return False
    return True
