"""Works on many files at a time: reading, hashing and waiting for the disk all let other threads run."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

THREADS = 16

Item = TypeVar("Item")
Result = TypeVar("Result")


def in_threads(work: Callable[[Item], Result], items: Iterable[Item], what: str | None = None) -> list[Result]:
    """`work` of every item, in order, by threads.

    The first error ends it, and so does Ctrl-C: what has not begun is left out.

    Args:
        what: name of a progress bar, which is shown if it takes a while; None shows none.
    """
    todo, pool = list(items), ThreadPoolExecutor(THREADS)
    try:
        results = pool.map(work, todo)
        if what is None:
            return list(results)
        from tqdm import tqdm

        unattended = not sys.stderr.isatty()
        return list(tqdm(results, what, len(todo), unit="file", delay=2, leave=False, disable=unattended))
    finally:
        pool.shutdown(cancel_futures=True)
