"""Tables and the figure, made of the results that exist and of nothing else."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.references.shrec22_track import PUBLISHED, TIOUS
from benchmarks.studies.real.rows import PAPERS_MARK, ROWS
from tad.files import read_json
from tad.report import style

FIGURE = Path("docs/results/real.png")
Result = dict[str, Any]
Group = tuple[str, list[Result]]
"""A row's labels and way, and its results with all seeds."""
MAP = ("0.3", "0.4", "0.5", "0.6", "0.7", "mean")
FULL = ("full", "full")
"""Labels and way of the ceiling in the figure."""
WEAK = ("proposer", "seeds", "pser", "points", "potloc", "hrpro")


def read_all(folder: Path) -> list[Result]:
    """All results in a folder."""
    return [read_json(path) for part in ("dev", "test") for path in sorted((folder / part).glob("*.json"))]


def read(folder: Path) -> list[Result]:
    """The results of the benchmark in a folder, in the order of the rows; those of the papers' rows are not its own.

    Raises:
        SystemExit: there is none.
    """
    found = [result for result in read_all(folder) if PAPERS_MARK not in result["way"]]
    if not found:
        raise SystemExit(f"{folder}: no results in {folder}/dev or {folder}/test; make them with --out {folder}")
    order = {row: i for i, row in enumerate(ROWS)}
    return sorted(found, key=lambda r: order.get((r["dataset"], r["labels"], r["way"]), len(order)))


def markdown(results: Sequence[Result]) -> str:
    """Every table for which there are results."""
    parts = []
    for dataset in ("shrec22", "sbhar"):
        for part, judges in (("dev", "dev videos"), ("test", "test videos")):
            own = [r for r in results if r["dataset"] == dataset and r["part"] == part]
            if not own:
                continue
            parts.append(f"### {dataset}, {judges}\n\n{detections(own)}")
            if any(r["labels_quality"] for r in own):
                parts.append(f"Pseudo-labels of the training videos:\n\n{pseudo_labels(own)}")
            if any("track" in r for r in own):
                parts.append(f"The measures of the track:\n\n{by_track(own)}")
    return "\n\n".join(parts)


def table(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    rule = ["---", "---", *["---:"] * (len(head) - 2)]
    return "\n".join("| " + " | ".join(line) + " |" for line in [head, rule, *lines])


def groups(results: Sequence[Result]) -> list[Group]:
    found: dict[tuple[str, str], list[Result]] = {}
    for result in results:
        found.setdefault((result["labels"], result["way"]), []).append(result)
    return [(f"{labels} | `{way}`", own) for (labels, way), own in found.items()]


def mean(own: Sequence[Result], value: Callable[[Result], float], digits: int = 1) -> str:
    return f"{statistics.mean(map(value, own)):.{digits}f}"


def spread(values: Sequence[float]) -> str:
    """Least to most, and of how many seeds."""
    return f"{min(values):.1f}–{max(values):.1f} ({len(values)})"


def detections(results: Sequence[Result]) -> str:
    """mAP and F1 [%]: means over the seeds."""
    head = ["labels", "way", ".3", ".4", ".5", ".6", ".7", "mean", "least–most (seeds)", "F1 at .5", "CPU s", "code"]
    reads = any("reads" in r for r in results)
    lines = []
    for name, own in groups(results):
        cells = [mean(own, lambda r, t=t: r["map"][t]) for t in MAP]
        cells[-1] = f"**{cells[-1]}**"
        cells.append(spread([r["map"]["mean"] for r in own]))
        cells += [mean(own, lambda r: r["f1"]["0.5"]), mean(own, lambda r: r["seconds"], 0)]
        cells.append(", ".join(sorted({r["commit"] for r in own})))
        if reads:
            cells.append(str(max(r["reads"] for r in own)))
        lines.append([name, *cells])
    return table([*head, *(["times read"] if reads else [])], lines)


def pseudo_labels(results: Sequence[Result]) -> str:
    """Means over the seeds; errors are medians, ± their median absolute deviation, in feature rows."""
    head = ["labels", "way", "judged", "mean tIoU", ">= .5", ">= .7", "log2 length", "start [rows]", "end [rows]"]
    lines = []
    for name, own in groups([r for r in results if r["labels_quality"]]):
        of = [r["labels_quality"] for r in own]
        cells = [str(round(statistics.mean(q["count"] for q in of))) + f" {of[0]['judged']}"]
        cells.append(mean(of, lambda q: q["mean_tiou"], 3))
        cells += [mean(of, lambda q, t=t: 100 * q["share"][t]) for t in ("0.5", "0.7")]
        cells.append(f"{statistics.mean(q['mean_log2_length_ratio'] for q in of):+.2f}")
        for side in ("start", "end"):
            middle = statistics.mean(q["error"][side] for q in of)
            cells.append(f"{middle:+.1f} ± {mean(of, lambda q, s=side: q['error_mad'][s])}")
        lines.append([name, *cells])
    return table(head, lines)


def by_track(results: Sequence[Result]) -> str:
    """Beside the track's own systems, which are fully supervised and online."""
    head = ["labels", "way", "detection rate", "false positives", "Jaccard", "F1 at .3", ".5", ".7", "threshold from"]
    lines = []
    for name, own in groups([r for r in results if "track" in r]):
        cells = [mean(own, lambda r, k=k: r["track"][k], 3) for k in ("detection_rate", "false_positives", "jaccard")]
        cells += [mean(own, lambda r, t=t: r["track"]["f1"][str(t)], 3) for t in TIOUS]
        lines.append([name, *cells, ", ".join(sorted({r["threshold_from"] for r in own}))])
    for name, system in PUBLISHED.items():
        values = (system.detection_rate, system.false_positives, system.jaccard, *system.f1)
        lines.append([f"full, online | {name}", *(f"{x:.3f}" for x in values), ""])
    return table(head, lines)


def figure(results: Sequence[Result], path: Path) -> None:
    """mAP at each tIoU of the ways that learn from the given points, beside full labels: a panel for each dataset.

    On the test videos, or on the dev videos where nothing was judged on those.

    Raises:
        SystemExit: there is nothing to draw.
    """
    drawn_rows = (FULL, *(("points", way) for way in WEAK))
    panels = []
    for dataset in ("shrec22", "sbhar"):
        own = [r for r in results if r["dataset"] == dataset and (r["labels"], r["way"]) in drawn_rows]
        part = "test" if any(r["part"] == "test" for r in own) else "dev"
        if own:
            panels.append((f"{dataset}, {part} videos", [r for r in own if r["part"] == part]))
    if not panels:
        raise SystemExit("nothing to draw: no result of a detector or of points")
    with style.styled():
        drawn = style.figure(5.0 * len(panels), 4.0)
        for axes, (title, shown) in zip(drawn.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
            colours = dict(zip(WEAK, style.STRONG, strict=False))
            for labels, way in drawn_rows:
                lines = [r for r in shown if (r["labels"], r["way"]) == (labels, way)]
                if not lines:
                    continue
                values = [[r["map"][t] for r in lines] for t in MAP[:-1]]
                ceiling = (labels, way) == FULL
                colour, look = (style.INK, "--") if ceiling else (colours[way], "-")
                middle = [statistics.mean(v) for v in values]
                at = [float(t) for t in MAP[:-1]]
                axes.plot(at, middle, look, marker="o", color=colour, label="full labels" if ceiling else way)
                axes.fill_between(at, [min(v) for v in values], [max(v) for v in values], color=colour, alpha=0.15)
            axes.set_title(title)
            axes.set_xlabel("tIoU")
            axes.set_ylabel("mAP [%]")
            axes.set_ylim(0, 100)
            axes.legend(loc="lower left")
        style.png(drawn, path)
