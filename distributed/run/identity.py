"""Which process this is, in words that another process can check: does the one that wrote them still run?

A number of a process says little: it is used again, and each container counts its own. Boot id, process namespace and
start time in ticks since the boot hold however hosts are named and clocks are set. Where the system has none of them
(anything but Linux), or they are another machine's or container's, nothing can be told: a heartbeat has to.
"""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import Literal, NamedTuple

State = Literal["alive", "dead", "unknown"]
NONE = "-"


class Identity(NamedTuple):
    """A process, on this machine or another.

    Attributes:
        host: for people; two machines may share a name.
        boot: boot id of the machine; "-" if unknown.
        space: inode of the process namespace, which each container has of its own; "-" if unknown.
        pid: within that namespace.
        born: start of the process, ticks since the boot.
    """

    host: str
    boot: str
    space: str
    pid: int
    born: int

    @classmethod
    def me(cls) -> Identity:
        boot, space = _surroundings() or (NONE, NONE)
        stat = _stat(os.getpid()) if boot != NONE else None
        host = "-".join(socket.gethostname().split()) or NONE
        return cls(host, boot, space, os.getpid(), stat[1]) if stat else cls(host, NONE, NONE, os.getpid(), 0)

    def __str__(self) -> str:
        return " ".join(str(part) for part in self)

    @classmethod
    def parse(cls, text: str) -> Identity:
        """The identity that `str` wrote; any other text stands for a process of which nothing can be told."""
        try:
            host, boot, space, pid, born = text.split(" ")
            return cls(host, boot, space, int(pid), int(born))
        except ValueError:
            return cls(text, NONE, NONE, 0, 0)

    def state(self) -> State:
        """Whether the process still runs; "unknown" if it is another machine's, another container's or hidden."""
        if NONE in (self.boot, self.space) or (self.boot, self.space) != _surroundings() or self.pid < 1:
            return "unknown"
        try:
            os.kill(self.pid, 0)
        except (ProcessLookupError, OverflowError):
            return "dead"
        except PermissionError:
            pass  # another user's
        stat = _stat(self.pid)
        if stat is None:
            return "unknown"  # gone a moment ago, or /proc hides other users' processes
        return "alive" if stat[1] == self.born and stat[0] not in "ZX" else "dead"


def _surroundings() -> tuple[str, str] | None:
    """Boot id and process namespace; None where /proc is missing or is not that of this namespace."""
    try:
        if os.readlink("/proc/self") != str(os.getpid()):
            return None
        space = os.stat("/proc/self/ns/pid").st_ino
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip() or NONE, str(space)
    except (OSError, ValueError):
        return None


def _stat(pid: int) -> tuple[str, int] | None:
    """State letter and start of a process in ticks since the boot; None if they cannot be read."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()  # its name may hold blanks and )
        return fields[0].decode(), int(fields[19])
    except (OSError, ValueError, IndexError):
        return None
