"""What a recipe may cost: Optuna's constraints of a search, and the memory that a trial's process holds."""

from __future__ import annotations

import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from optuna.trial import FrozenTrial

GIB = 2**30
OWN = Path("/proc/self")


@dataclass(frozen=True)
class Limits:
    """The most that a recipe may cost to be the best one; None: as much as it likes.

    Attributes:
        seconds: that all its stages took when they were made, as `--cost` counts them.
        memory: GiB that the trial's process held at most, or that it held on its GPU.
    """

    seconds: float | None = None
    memory: float | None = None

    def __bool__(self) -> bool:
        return self.seconds is not None or self.memory is not None

    def __str__(self) -> str:
        parts = [f"{self.seconds:g} s"] if self.seconds is not None else []
        return " and ".join(parts + ([f"{self.memory:g} GiB"] if self.memory is not None else []))

    def excess(self, trial: FrozenTrial) -> list[float]:
        """How far a trial is above each limit, as a share of it; 0 and less keep it. Without a noted cost it is 1."""
        limits = (("cost", self.seconds), ("memory", self.memory))
        return [float(trial.user_attrs.get(name, 2 * limit)) / limit - 1 for name, limit in limits if limit is not None]

    def kept(self, trial: FrozenTrial) -> bool:
        return all(share <= 0 for share in self.excess(trial))


NO_LIMITS = Limits()


class Memory:
    """The most memory that this process held since this was made [GiB]; on a GPU, if it uses one, there.

    Only Linux can begin anew; elsewhere it is the most since the process began.
    """

    def __init__(self) -> None:
        with suppress(OSError):
            (OWN / "clear_refs").write_text("5")  # proc(5): resets the peak of the resident set
        if _on_gpu():
            import torch

            torch.cuda.reset_peak_memory_stats()

    def peak(self) -> float:
        if _on_gpu():
            import torch

            return float(torch.cuda.max_memory_allocated() / GIB)
        with suppress(OSError, StopIteration, ValueError):
            line = next(row for row in (OWN / "status").read_text().splitlines() if row.startswith("VmHWM:"))
            return int(line.split()[1]) * 1024 / GIB
        import resource

        size = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return size * (1 if sys.platform == "darwin" else 1024) / GIB


def _on_gpu() -> bool:
    torch = sys.modules.get("torch")
    return torch is not None and torch.cuda.is_initialized()
