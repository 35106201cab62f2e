"""LACP's search for complete segments, hypothesis by hypothesis."""

from __future__ import annotations

from itertools import pairwise

import numpy as np


def contrast(curve: list[float], first: int, last: int) -> float:
    """Rows first..last, both inclusive; margins of a quarter of the length, cut to whole rows outwards-left."""
    length = last - first + 1
    outside = list(range(max(0, int(np.floor(first - length / 4))), first))
    outside += range(last + 1, min(len(curve) - 1, int(np.floor(last + length / 4))) + 1)
    outer = sum(curve[t] for t in outside) / len(outside) if outside else 0.0
    return sum(curve[first : last + 1]) / length - outer


def plain_search(curve: list[float], known: list[int], budget: int, floor: float = 0.1, ties: int = 4) -> list[int]:
    """The published beam row by row, with a bound on ties; a hypothesis is the list of rows that begin a segment."""
    cores: list[list[int]] = []  # kind, first and last known row
    for t, kind in enumerate(known):
        if kind >= 0 and cores and cores[-1][0] == kind:
            cores[-1][2] = t
        elif kind >= 0:
            cores.append([kind, t, t])
    complement = [1 - x for x in curve]

    def value(cuts: list[int], end: int | None = None) -> float:
        """Mean over the finished segments; with `end` also the one that ends there."""
        edges = [0, *cuts] + ([] if end is None else [end])
        total = 0.0
        for i, (first, last) in enumerate(pairwise(edges)):
            total += contrast(curve if cores[i][0] else complement, first, last - 1)
        return total / (len(edges) - 1) if len(edges) > 1 else float("inf")

    live: list[list[int]] = [[]]
    for t in range(1, len(curve)):
        grown, started = [], []
        for cuts in live:
            now = len(cuts)
            if now + 1 == len(cores) or t <= cores[now][2]:
                grown.append(cuts)
            elif t == cores[now + 1][1]:
                grown.append([*cuts, t])
            else:
                grown.append(cuts)
                started.append([*cuts, t])
        live = grown + started
        scores = [value(cuts) for cuts in live]
        best = live[int(np.argmax(scores))]
        live = [cuts for cuts, q in zip(live, scores, strict=True) if q >= floor or cuts is best]
        if len(live) > budget:
            bar = sorted((value(cuts) for cuts in live), reverse=True)[budget - 1]
            live = [cuts for cuts in live if value(cuts) >= bar]
        spare = [cuts for cuts in live if cuts is not best][: ties * budget - 1]
        live = [cuts for cuts in live if cuts is best or cuts in spare]
    return max(live, key=lambda cuts: value(cuts, len(curve)))
