"""A Ray of this process's own: it listens on this machine alone, and its folder is this user's alone.

Ray's own defaults are made for clusters: a dozen ports on all interfaces, and a folder that everybody may change.
"""

from __future__ import annotations

import os
import shutil
import stat
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from distributed.cluster.token import make_token
from tad.errors import RunError

SOCKET = 103 if sys.platform == "darwin" else 107
"""Bytes that the path of a Unix socket may have."""
BELOW = len("/ray/session_2026-11-29_03-42-04_055308_4194304/sockets/plasma_store")
"""Bytes of it that Ray needs below its folder."""
LAST = "/tmp"
"""Where Ray's folder is made if the environment names no better place."""
SHM = Path("/dev/shm")
STORE_LEAST = 75 * 2**20
"""Bytes of the smallest object store that Ray starts."""
STORE_ON_DISK = 2**30
"""Bytes of an object store in a folder, where /dev/shm is too small; chunks of ids and results need a few MiB."""


@contextmanager
def own_ray() -> Iterator[dict[str, Any]]:
    """Arguments of `ray.init`, and an environment in which its processes are closed to others.

    Raises:
        RunError: no folder can hold Ray's sockets, or the token is open to others.
    """
    from ray._private import ray_constants

    make_token()
    folder = ray_folder()
    # 0: Ray listens on 127.0.0.1.
    settings: dict[str, tuple[str, int]] = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": ("ENABLE_RAY_CLUSTER", 0)}
    if (most := store_memory()) is not None:
        settings["RAY_DEFAULT_OBJECT_STORE_MAX_MEMORY_BYTES"] = ("DEFAULT_OBJECT_STORE_MAX_MEMORY_BYTES", most)
    with ExitStack() as stack:
        for variable, (constant, value) in settings.items():
            if variable not in os.environ:
                # Ray reads it when it is imported: the processes that it starts will, this one has.
                os.environ[variable] = str(value)
                stack.callback(os.environ.pop, variable, None)
                stack.callback(setattr, ray_constants, constant, getattr(ray_constants, constant))
                setattr(ray_constants, constant, value)
        if "GLOO_SOCKET_IFNAME" not in os.environ:  # else training workers listen at the address of the host's name
            os.environ["GLOO_SOCKET_IFNAME"] = "lo0" if sys.platform == "darwin" else "lo"
            stack.callback(os.environ.pop, "GLOO_SOCKET_IFNAME", None)
        yield {"_temp_dir": str(folder / "ray")}


def ray_folder() -> Path:
    """A folder for Ray's sockets and logs that is this user's alone: below RAY_TMPDIR, TMPDIR or /tmp.

    A folder whose path is too long for sockets is passed over.

    Raises:
        RunError: none of them will do; says why each will not.
    """
    reasons = []
    for base in dict.fromkeys(filter(None, (os.environ.get("RAY_TMPDIR"), os.environ.get("TMPDIR"), LAST))):
        folder = Path(base).absolute() / f"ray-{os.geteuid()}"
        if (length := len(os.fsencode(folder)) + BELOW) > SOCKET:
            reasons.append(f"{base}: the path is {length - SOCKET} bytes too long for sockets")
            continue
        try:
            folder.mkdir(mode=0o700, exist_ok=True)
            found = folder.lstat()
            if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
                reasons.append(f"{folder}: is not this user's folder")
                continue
            folder.chmod(0o700)
        except OSError as error:
            reasons.append(f"{base}: {error.strerror}")
            continue
        if not os.access(folder, os.W_OK):
            reasons.append(f"{folder}: cannot be written")
            continue
        return folder
    raise RunError(
        "Ray finds no folder for its sockets and logs; set RAY_TMPDIR to a short one that can be written, or run "
        f"without Ray, --local ({'; '.join(reasons)})"
    )


def store_memory() -> int | None:
    """The most bytes for Ray's object store: what /dev/shm has free, as a container may have little.

    Returns:
        None where Ray's own rule will do.
    """
    if not SHM.is_dir():
        return None
    room = int(shutil.disk_usage(SHM).free * 0.9)
    return room if room >= STORE_LEAST else STORE_ON_DISK
