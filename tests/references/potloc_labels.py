"""POTLoc's Algorithm 1 in plain loops."""

from __future__ import annotations

import math


def labels_by_loops(points, proposals, rule, classes, duration):
    """Algorithm 1 in loops, rule by rule; None where no class has a candidate."""
    points = sorted(points)
    candidates, lengths = {}, {}
    for group, start, end, score in proposals:
        mine = [t for g, t in points if g == group]
        inside = [t for t in mine if start <= t <= end]
        if rule == "paper" and len(inside) > 1:
            continue
        for t in inside:
            near = mine if rule == "midpoints" else inside
            left = max([(t + u) / 2 for u in near if u < t] + [start] + ([0.0] if rule == "midpoints" else []))
            right = min([(t + u) / 2 for u in near if u > t] + [end] + ([duration] if rule == "midpoints" else []))
            if rule != "midpoints" or right - left >= 1e-3:
                candidates.setdefault(group, []).append((left, right, score))
                lengths.setdefault(group % classes, []).append(right - left)
    every = [x for part in lengths.values() for x in part]
    covered = [any(s <= t <= e for s, e, _ in candidates.get(g, [])) for g, t in points]
    if not every and not all(covered):
        return None
    pool = {g: list(part) for g, part in candidates.items()}
    for (group, t), done in zip(points, covered, strict=True):
        if done:
            continue
        some = lengths.get(group % classes, every)
        half = math.fsum(some) / len(some) / 2
        left, right, score = max(0.0, t - half), t + half, 0.0
        around = [p for p in proposals if p[0] == group and p[1] <= t <= p[2]]
        if rule == "paper" and around:
            _, start, end, score = max(around, key=lambda p: p[3])  # the first of equals
            left, right = max(left, start), min(right, end)
        if rule == "midpoints":
            mine = [u for g, u in points if g == group]
            left = max([left] + [(t + u) / 2 for u in mine if u < t])
            right = min([right, duration] + [(t + u) / 2 for u in mine if u > t])
        pool.setdefault(group, []).append((left, right, score))
    labels = []
    for group, t in points:
        best = None
        for start, end, score in pool[group]:
            if start <= t <= end and (best is None or score > best[2]):
                best = (start, end, score)
        labels.append(best)
    return labels
