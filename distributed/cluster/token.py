"""The token that opens a Ray cluster: its file is for its owner's eyes only.

Whoever reads the token runs commands on the cluster as its owner. Ray itself makes the file readable by everybody.
"""

from __future__ import annotations

import os
import secrets
import shlex
import stat
import tempfile
from contextlib import suppress
from pathlib import Path

from tad.errors import RunError

OTHERS = stat.S_IRGRP | stat.S_IWGRP | stat.S_IROTH | stat.S_IWOTH


def token_file() -> Path | None:
    """The file that Ray takes its token from, there or not; None if it takes none from a file."""
    if os.environ.get("RAY_AUTH_MODE", "token").lower() != "token" or os.environ.get("RAY_AUTH_TOKEN"):
        return None
    return Path(os.environ.get("RAY_AUTH_TOKEN_PATH") or _default())


def exposed() -> str | None:
    """What is wrong with the token's file, "" if nothing is; None if there is no file."""
    path = token_file()
    try:
        found = path.stat() if path is not None else None
    except OSError:
        return None
    if path is None or found is None:
        return None
    if not found.st_mode & OTHERS:
        return ""
    return (
        f"{path}: other users of this machine can read or change the key to the cluster (mode "
        f"{stat.S_IMODE(found.st_mode):03o}); close it with `chmod 600 {shlex.quote(str(path))}`, and make a new one "
        "if somebody may have read it"
    )


def check_token() -> None:
    """Refuses a token that others can read.

    Raises:
        RunError: its file is open to others; says the command that closes it.
    """
    if wrong := exposed():
        raise RunError(wrong)


def make_token() -> None:
    """For a Ray of this process's own: a token in the usual file, closed; in the environment where there is no home.

    A file that an earlier Ray left open is closed.

    Raises:
        RunError: RAY_AUTH_TOKEN_PATH names a file that others can read.
    """
    path = token_file()
    if path is None:
        return
    if os.environ.get("RAY_AUTH_TOKEN_PATH"):
        check_token()
        return
    try:
        _write(path)
        if exposed():
            path.chmod(0o600)
    except OSError:  # no home, or one that cannot be written
        # Stays for the life of this process: Ray remembers the first token that it has seen.
        if not os.access(path, os.R_OK) or exposed():
            os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)


def _write(path: Path) -> None:
    """A new token, unless there is one; whole at once, for another process may look for it now."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    if path.exists() and path.stat().st_size:
        return
    handle, beside = tempfile.mkstemp(prefix=".auth_token-", dir=path.parent)  # mode 0600
    try:
        with os.fdopen(handle, "w") as file:
            file.write(secrets.token_hex(32))
        if path.exists():  # an empty one, which Ray refuses
            os.replace(beside, path)
        else:
            with suppress(FileExistsError):  # another process was faster: its token counts
                os.link(beside, path)
    finally:
        Path(beside).unlink(missing_ok=True)


def _default() -> Path:
    try:
        return Path.home() / ".ray" / "auth_token"
    except RuntimeError:  # a user without name and HOME
        return Path("/nonexistent/.ray/auth_token")
