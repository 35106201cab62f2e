"""Batches made before they are needed, by threads: a GPU computes one while the next ones are read."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, TypeVar

from torch.utils.data import Dataset

Key = TypeVar("Key")
Made = TypeVar("Made")

AHEAD = 2
"""Batches that wait or are being made, for each thread."""


class ReadAhead(Dataset, Generic[Key, Made]):
    """The results of a function for a list of keys, to be asked for in order.

    Threads suffice, since reading files and NumPy's copies let others run; unlike processes they start at once, share
    the page cache's mappings, and an error reaches the caller as it was raised.

    Args:
        make: must give the same for a key at any time and in any thread.
        keys: one for each result.
        threads: 0 makes each result when it is asked for.
    """

    def __init__(self, make: Callable[[Key], Made], keys: Sequence[Key], threads: int) -> None:
        self._make, self._keys, self._ahead = make, keys, AHEAD * threads
        self._pool = ThreadPoolExecutor(threads, "read-ahead") if threads else None
        self._waiting: deque[Future[Made]] = deque()
        self._submitted = 0

    def __len__(self) -> int:
        return len(self._keys)

    def __getitem__(self, index: int) -> Made:
        if self._pool is None:
            return self._make(self._keys[index])
        last = min(index + self._ahead, len(self._keys))
        for key in self._keys[self._submitted : last]:
            self._waiting.append(self._pool.submit(self._make, key))
        self._submitted = max(self._submitted, last)
        return self._waiting.popleft().result()

    def close(self) -> None:
        """Drops what was not asked for; waits for what is being made."""
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)
