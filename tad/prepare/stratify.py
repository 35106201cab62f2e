"""Deals videos into parts so that each part gets its share of every class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np


def stratified(
    classes: Mapping[str, set[int]],
    sizes: Sequence[int] | np.ndarray,
    seed: int,
    shares: np.ndarray | None = None,
    fixed: Mapping[str, int] | None = None,
) -> list[list[str]]:
    """Videos in parts of given sizes, each class spread over them as evenly as this allows.

    Iterative stratification (Sechidis et al., ECML PKDD 2011): of the class that the fewest unassigned videos have,
    each video goes to the part that lacks this class most. Equally good parts: the emptiest, then by chance.

    Args:
        classes: the classes of each video; the order of the videos matters for chance only.
        sizes: [K] videos of each part, all videos together.
        shares: [K] of each class; by default those of the sizes.
        fixed: the part of some videos, dealt before all others.

    Returns:
        K lists of videos, each in the order of `classes`.
    """
    room = np.array(sizes)
    k, shares = len(room), room / max(1, len(classes)) if shares is None else shares
    rng = np.random.default_rng(seed)
    videos = [list(classes)[i] for i in rng.permutation(len(classes))]
    names = sorted({c for found in classes.values() for c in found})
    lack = {c: shares * sum(c in found for found in classes.values()) for c in names}
    part_of: dict[str, int] = {}

    def deal(video: str, part: int) -> None:
        part_of[video] = part
        room[part] -= 1
        for c in classes[video]:
            lack[c][part] -= 1

    for video, part in (fixed or {}).items():
        deal(video, part)
    while len(part_of) < len(videos):
        rest = [v for v in videos if v not in part_of]
        left = {c: n for c in names if (n := sum(c in classes[v] for v in rest))}
        rarest = min(left, key=lambda c: (left[c], c)) if left else None
        for video in rest:
            if rarest is not None and rarest not in classes[video]:
                continue
            need = lack[rarest] if rarest is not None else np.zeros(k)
            free = np.flatnonzero(room > 0)
            deal(video, int(free[np.lexsort((rng.random(len(free)), -room[free], -need[free]))[0]]))
    return [[v for v in classes if part_of[v] == i] for i in range(k)]


def stratified_folds(classes: Mapping[str, set[int]], k: int, seed: int) -> list[list[str]]:
    """Videos in `k` folds whose sizes differ by at most one; see `stratified`."""
    sizes = np.full(k, len(classes) // k)
    sizes[: len(classes) % k] += 1
    return stratified(classes, sizes, seed, np.full(k, 1 / k))
