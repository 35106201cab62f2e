"""Speed of Gaussian weighted fusion on one core, beside a plain loop: `python -m benchmarks.speed.fusion`.

One thread; bars and ratios are of CPU time (medians), which other work on the machine disturbs least; loops are timed
once. The bar of 20 ms is met by 2,000 candidates in each of 20 classes, and so by 2,000 in all.
"""

# ruff: noqa: I001 - benchmarks.speed.ops sets thread counts, so it comes before numpy
from __future__ import annotations

from benchmarks.speed.ops import Case, clustered, milliseconds, timed

import numpy as np

from tad.ops.fusion import Fused, gaussian_fusion

BAR = 20.0


def nested(count: int, classes: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Candidates of a video of 200 s as threshold sweeps give them: around 60 places, seconds to minutes long."""
    rng = np.random.default_rng(seed)
    centre = rng.uniform(0, 200, 60)[rng.integers(60, size=count)]
    length = rng.lognormal(1.5, 1.0, count)
    spans = np.clip(np.stack([centre - length / 2, centre + length / 2], 1), 0, 200)
    return spans, rng.beta(0.6, 4, count), rng.integers(classes, size=count)


def loop_fusion(
    spans: np.ndarray, scores: np.ndarray, labels: np.ndarray, temperature: float, threshold: float
) -> list[tuple[float, float, float]]:
    """The published rule: numpy over the candidates left, a loop over groups. (score, start, end), best first."""
    found: list[tuple[float, float, float]] = []
    for c in np.unique(labels):
        rows = np.flatnonzero(labels == c)
        rows = rows[np.argsort(-scores[rows], kind="stable")]
        s, q = spans[rows].astype(np.float64), scores[rows].astype(np.float64)
        while len(q):
            inter = np.maximum(0, np.minimum(s[0, 1], s[:, 1]) - np.maximum(s[0, 0], s[:, 0]))
            group = inter / (s[:, 1] - s[:, 0]) > threshold
            group[0] = True
            omega = np.exp((q[group] - q[group].max()) / temperature)
            omega /= omega.sum()
            start, end = omega @ s[group]
            found.append((float(omega @ q[group]), float(start), float(end)))
            s, q = s[~group], q[~group]
    return sorted(found, reverse=True)


def fusion_cases() -> list[Case]:
    """Fusion with the published options; the loop's result is the same.

    Raises:
        SystemExit: it is not.
    """
    cases = []
    for name, (spans, scores, labels) in (
        ("fusion, 2,000 candidates, 20 classes", clustered(2000, 20)),
        ("fusion, 2,000 in each of 20 classes, 1,000 places", clustered(40_000, 20)),
        ("  the same, 60 places, nested", nested(40_000, 20)),
    ):
        given = spans, scores, labels

        def fast(given: tuple[np.ndarray, np.ndarray, np.ndarray] = given) -> Fused:
            return gaussian_fusion(given[0], given[1], given[1], given[2], temperature=0.2)

        def loop(given: tuple[np.ndarray, np.ndarray, np.ndarray] = given) -> list[tuple[float, float, float]]:
            return loop_fusion(*given, temperature=0.2, threshold=0.25)

        fused = fast()
        if not np.allclose(np.column_stack([fused.scores, fused.spans]), loop(), atol=1e-9):
            raise SystemExit(f"{name}: not what the loop gives")
        cases.append(Case(name, fast, loop, bar=BAR))
    return cases


def main() -> None:
    print(f"{'operation':<52}{'wall ms':>9}{'CPU ms':>9}{'loop ms':>10}{'ratio':>8}{'bar ms':>8}  met")
    missed = 0
    for case in fusion_cases():
        wall, cpu = milliseconds(case.fast)
        _, slow = timed(case.loop)
        met = cpu <= BAR
        missed += not met
        print(
            f"{case.name:<52}{wall:>9.2f}{cpu:>9.2f}{slow:>10.1f}{slow / cpu:>7.0f}x{BAR:>8g}  {'yes' if met else 'NO'}"
        )
    if missed:
        raise SystemExit(f"{missed} bar(s) missed")


if __name__ == "__main__":
    main()
