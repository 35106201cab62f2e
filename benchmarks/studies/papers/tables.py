"""A paper's tables, made of the results that exist and of nothing else, beside the paper's own figures."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks.studies.papers.paper import Paper, Table
from benchmarks.studies.papers.rows import PAPERS
from benchmarks.studies.real import tables
from benchmarks.studies.real.rows import PAPERS_MARK
from benchmarks.studies.real.tables import Result

Found = Mapping[str, Mapping[int, Result]]
"""Results by way and seed, of one paper and one kind of labels."""


def read(folder: Path) -> list[Result]:
    """All results of papers' rows in a folder.

    Raises:
        SystemExit: there is none.
    """
    found = [r for r in tables.read_all(folder) if PAPERS_MARK in r["way"]]
    if not found:
        raise SystemExit(f"{folder}: no results of the papers' rows; make them with --out {folder}")
    return found


def markdown(results: Sequence[Result]) -> str:
    """Every table for which there are results."""
    parts = []
    for dataset, part in sorted({(r["dataset"], r["part"]) for r in results}):
        for paper in PAPERS:
            for number, labels in enumerate(paper.labels):
                found: dict[str, dict[int, Result]] = {}
                for r in results:
                    name, _, way = r["way"].partition(PAPERS_MARK)
                    if (r["dataset"], r["part"], r["labels"], name) == (dataset, part, labels, paper.name):
                        found.setdefault(way, {})[r["seed"]] = r
                for table in paper.tables:
                    if any(line.way in found for line in table.lines):
                        title = f"### {paper.name}, {table.title}: {dataset}, {labels}, {part} videos"
                        parts.append("\n\n".join([title, *of_table(paper, table, number, found)]))
    return "\n\n".join(parts)


def of_table(paper: Paper, table: Table, number: int, found: Found) -> list[str]:
    """What was measured, the rows, and the steps between those of them that have a seed in common."""
    one = next(iter(found[next(line.way for line in table.lines if line.way in found)].values()))
    tious = thresholds(paper, one)
    what = f"Mean mAP [%] at tIoU {tious[0]} to {tious[-1]}; paper: {paper.measure}."
    steps = gains(paper, table, number, found)
    return [what, rows(paper, table, number, found), *([steps] if steps else [])]


def thresholds(paper: Paper, result: Result) -> list[str]:
    """Those that a result was measured at and that the paper's mean is over."""
    return [t for t in result["map"] if t != "mean" and float(t) >= paper.least]


def value(paper: Paper, result: Result) -> float:
    return statistics.mean(result["map"][t] for t in thresholds(paper, result))


def rows(paper: Paper, table: Table, number: int, found: Found) -> str:
    """Means over the seeds, and each seed's; pseudo-labels: mean tIoU and how many there are."""
    head = ["row", "way", "mean", "seeds", "labels' tIoU", "labels", "paper", "CPU s", "code"]
    lines = []
    for line in table.lines:
        if line.way not in found:
            continue
        own = [result for _, result in sorted(found[line.way].items())]
        maps = [value(paper, r) for r in own]
        of_labels = [r["labels_quality"] for r in own if r["labels_quality"]]
        cells = [f"**{statistics.mean(maps):.1f}**", ", ".join(f"{m:.1f}" for m in maps)]
        cells.append(tables.mean(of_labels, lambda q: q["mean_tiou"], 3) if of_labels else "")
        cells.append(tables.mean(of_labels, labels, 0) if of_labels else "")
        figure = table.figure(line.way, number)
        cells.append("" if figure is None else f"{figure:.1f}")
        cells += [tables.mean(own, lambda r: r["seconds"], 0), ", ".join(sorted({r["commit"] for r in own}))]
        lines.append([line.text, f"`{paper.name}{PAPERS_MARK}{line.way}`", *cells])
    return tables.table(head, lines)


def labels(quality: Result) -> int:
    """The number of pseudo-labels: those that a point has, and those without one."""
    of_points = quality["judged"] == "points"
    return int(quality["matched"] + quality["unmatched"] if of_points else quality["count"])


def gains(paper: Paper, table: Table, number: int, found: Found) -> str:
    """What each step gains with the seeds that both of its rows have; empty if there is no step."""
    lines = []
    for step in table.steps:
        after, before = found.get(step.way, {}), found.get(step.against, {})
        each = [value(paper, after[s]) - value(paper, before[s]) for s in sorted(after.keys() & before.keys())]
        if not each:
            continue
        figures = (table.figure(step.way, number), table.figure(step.against, number))
        published = "" if None in figures else f"{figures[0] - figures[1]:+.1f}"  # type: ignore[operator]
        more = sum(gain > 0 for gain in each)
        cells = [f"**{statistics.mean(each):+.1f}**", ", ".join(f"{gain:+.1f}" for gain in each)]
        between = f"`{step.way}` over `{step.against}`"
        lines.append([step.text, between, *cells, f"{more} of {len(each)}", published])
    head = ["step", "of", "gain", "by seed", "seeds that gain", "paper"]
    return tables.table(head, lines) if lines else ""
