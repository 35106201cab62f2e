"""A file that a command writes at its end, looked at before the work begins."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from pathlib import Path

from tad.data.remote import is_uri
from tad.errors import DataError, RunError
from tad.files import cause, replaceable


def file_to_write(out: Path, option: str = "--out", keep: Iterable[Path | str | None] = ()) -> Path:
    """The path itself, if a file can be written there; of a link, which stays, where it leads. Its folder is made.

    Args:
        option: what named it, for errors.
        keep: files and folders that the command reads. None of their files is replaced; URIs and None do not count.

    Raises:
        RunError: it is a folder, a pipe or a device, lies below a file, its folder cannot be made or written, its name
            is too long, or it is a file to be kept.
    """
    try:
        out = out.expanduser().resolve()
        out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=out.parent):
            pass
        replaceable(out)
    except DataError as error:
        raise RunError(f"{option} {error}") from error
    except (FileExistsError, NotADirectoryError) as error:
        raise RunError(f"{option} {out}: cannot be written: it lies below a file; choose another") from error
    except (OSError, RuntimeError, ValueError) as error:  # RuntimeError: a loop of links, or no home folder
        raise RunError(f"{option} {out}: cannot be written: {cause(error)}; choose another") from error
    for read in keep:
        place = Path(read).expanduser().resolve() if read is not None and not is_uri(read) else None
        if out.exists() and place is not None and (out == place or place in out.parents):
            raise RunError(f"{option} {out}: this command reads {read}, and replaces none of its files; choose another")
    return out
