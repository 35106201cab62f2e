"""Reads many files at a time, and shows how far it is."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

THREADS = 16

Item = TypeVar("Item")
Result = TypeVar("Result")


def read_each(work: Callable[[Item], Result], items: Sequence[Item], what: str) -> list[Result]:
    """`work` of every item, in order, by threads; with a progress bar named `what` if it takes a while.

    The first error ends it, and so does Ctrl-C: what has not begun is left out.
    """
    from tqdm import tqdm

    pool = ThreadPoolExecutor(THREADS)
    try:
        results = pool.map(work, items)
        unattended = not sys.stderr.isatty()
        return list(tqdm(results, what, len(items), unit="file", delay=2, leave=False, disable=unattended))
    finally:
        pool.shutdown(cancel_futures=True)
