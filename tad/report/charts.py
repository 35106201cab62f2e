"""Figures over many videos, rounds or epochs: precision and recall, lengths, losses, rounds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator

from tad.evaluation.reliability import Bin
from tad.report.run import Round, StageRun
from tad.report.style import BLUE, GREEN, INK, MUTED, ORANGE, PALETTE, PURPLE, figure, plain, styled

MOST_CLASSES = 20
"""Beyond this many classes, single ones are drawn without a legend."""


def precision_recall_figure(
    panels: Mapping[str, Mapping[str, np.ndarray]], recalls: np.ndarray, colours: Mapping[str, str], tiou: float
) -> Figure:
    """Precision against recall at one tIoU, one panel for each subset, a line for each class and one for their mean.

    Args:
        panels: panel title to {class name: precision at `recalls`}; fractions. Classes without ground truth are absent.
        recalls: [R], ascending.
        colours: of the classes.
        tiou: named in the titles.
    """
    names = [name for name in colours if any(name in curves for curves in panels.values())]
    listed = len(names) <= MOST_CLASSES
    with styled():
        drawn = figure(max(6.0, 5.0 * len(panels)), 4.1)
        grid = drawn.subplots(1, len(panels), sharey=True, squeeze=False)[0]
        for axes, (title, curves) in zip(grid, panels.items(), strict=True):
            for name, precision in curves.items():
                axes.plot(100 * recalls, 100 * precision, color=colours[name], lw=1.1, alpha=0.9 if listed else 0.3)
            if curves:
                axes.plot(100 * recalls, 100 * np.mean(list(curves.values()), axis=0), color=INK, lw=2.6)
            axes.set(xlim=(0, 100), ylim=(0, 103), xlabel="recall [%]")
            axes.set_title(f"{title}, tIoU {tiou:g}")
        grid[0].set_ylabel("precision [%]")
        handles = [Line2D([], [], color=INK, lw=2.6, label="mean over classes")]
        handles += [Line2D([], [], color=colours[name], label=plain(name)) for name in names if listed]
        drawn.legend(handles=handles, loc="outside lower center", ncols=5 if len(panels) > 1 else 3)
    return drawn


def length_figure(panels: Mapping[str, Mapping[str, np.ndarray]]) -> Figure:
    """Histograms of segment lengths over a logarithmic time axis, one panel for each subset.

    Args:
        panels: panel title to {series name: lengths in seconds}; series are "ground truth", "pseudo-labels",
            "detections" or "proposals".
    """
    colours = {"ground truth": BLUE, "pseudo-labels": ORANGE, "detections": GREEN, "proposals": PURPLE}
    shown = {
        title: {name: lengths[lengths > 0] for name, lengths in series.items()} for title, series in panels.items()
    }
    every = np.concatenate([np.zeros(0), *(lengths for series in shown.values() for lengths in series.values())])
    low, high = (float(every.min()), float(every.max())) if len(every) else (1.0, 10.0)
    bins = np.geomspace(low * 0.95, max(high, low * 2) * 1.05, 25)
    with styled():
        drawn = figure(max(6.0, 5.0 * len(shown)), 3.4)
        grid = drawn.subplots(1, max(1, len(shown)), sharey=True, squeeze=False)[0]
        for axes, (title, series) in zip(grid, shown.items(), strict=False):
            axes.set_xscale("log")  # before drawing: the steps are then laid out on the scale they are seen on
            for name, lengths in series.items():
                if not len(lengths):
                    axes.plot([], [], color=colours[name], label=f"{name} (none)")
                    continue
                share = 100 * np.histogram(lengths, bins)[0] / len(lengths)
                median = f"median {np.median(lengths):.3g} s"
                axes.stairs(share, bins, color=colours[name], lw=1.8, label=f"{name} ({len(lengths)}, {median})")
                axes.stairs(share, bins, color=colours[name], fill=True, alpha=0.12)
            _seconds_axis(axes, bins)
            axes.set_title(title)
            axes.set_xlabel("length [s], logarithmic")
            axes.margins(y=0.05)
            axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=1)
        grid[0].set_ylabel("share of the segments [%]")
        grid[0].yaxis.set_major_locator(_steps())
    return drawn


def _seconds_axis(axes: Axes, bins: np.ndarray) -> None:
    ticks = [m * 10.0**e for e in range(-3, 6) for m in (1, 2, 5)]
    inside = [t for t in ticks if bins[0] <= t <= bins[-1]]
    if len(inside) > 9:
        inside = [t for t in inside if f"{t:e}"[0] == "1"]
    axes.xaxis.set_major_locator(FixedLocator(inside))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.set_xlim(bins[0], bins[-1])


def loss_figure(stages: Sequence[StageRun]) -> Figure | None:
    """Loss over epochs, one panel for each trained stage and one line for each round; None without an epoch. Those of
    the operating point's folds are left out."""
    trained: dict[str, list[StageRun]] = {}
    for stage in stages:
        if not stage.fold and any("loss" in metrics for metrics in stage.epochs.values()):
            trained.setdefault(stage.name, []).append(stage)
    if not trained:
        return None
    columns = min(3, len(trained))
    lines = -(-len(trained) // columns)
    with styled():
        drawn = figure(max(6.0, 4.0 * columns), 3.0 * lines)
        panels = drawn.subplots(lines, columns, squeeze=False).flat
        for axes, (name, runs) in zip(panels, trained.items(), strict=False):
            for i, stage in enumerate(runs):
                epochs = sorted(e for e, metrics in stage.epochs.items() if "loss" in metrics)
                losses = [stage.epochs[e]["loss"] for e in epochs]
                which = f"round {stage.round}" if stage.round is not None else f"training {i + 1}"
                axes.plot(
                    [e + 1 for e in epochs],
                    losses,
                    color=PALETTE[i % len(PALETTE)],
                    label=which,
                    marker="o" if len(epochs) < 3 else None,
                )
            axes.set_title(plain(name, 40))
            axes.set_xlabel("epoch")
            axes.set_ylabel("loss")
            axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))
            axes.yaxis.set_major_locator(_steps())
            if len(runs) > 1:
                axes.legend(ncols=1 if len(runs) < 5 else 2)
        for axes in panels:
            axes.set_visible(False)
    return drawn


def reliability_figure(bins: Sequence[Bin]) -> Figure:
    """Share of the detections that is right over their mean score, and how many have such a score."""
    low, width = [b.low for b in bins], bins[0].high - bins[0].low
    known = [(b.score, 100 * b.right) for b in bins if b.score is not None and b.right is not None]
    with styled():
        drawn = figure(10.0, 3.6)
        shares, numbers = drawn.subplots(1, 2)
        shares.plot([0, 1], [0, 100], color=MUTED, lw=1, ls="--", label="as the score says")
        shares.plot(*zip(*known, strict=True), color=BLUE, marker="o", label="detections")
        shares.set(xlim=(0, 1), ylim=(0, 103), xlabel="mean score", ylabel="right [%]")
        shares.legend(loc="upper left")
        numbers.bar(low, [b.detections for b in bins], width, align="edge", color=BLUE, alpha=0.6)
        if any(b.detections for b in bins):
            numbers.set_yscale("log")
            numbers.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
            numbers.set_ylim(bottom=0.8)
        numbers.set(xlim=(0, 1), xlabel="score", ylabel="detections, logarithmic")
    return drawn


def _right(row: Round) -> float | None:
    """Share of a round's pseudo-labels that are right, where no points tell their quality."""
    return row.instance_quality.hits if row.instance_quality is not None and row.quality is None else None


def rounds_figure(rounds: Sequence[Round], best: int | None) -> Figure | None:
    """mAP, and the scores that need no test videos, round by round; None without any number."""
    at = [r.round for r in rounds]
    left = {
        "test videos": (BLUE, [r.test_map.average if r.test_map else None for r in rounds]),
        "training videos": (GREEN, [r.train_map.average if r.train_map else None for r in rounds]),
        "development videos": (PURPLE, [r.scores.get("dev_map") for r in rounds]),
    }
    pointed = _known([r.scores.get("points") for r in rounds])
    right = {
        "pseudo-labels: mean tIoU": (ORANGE, [r.quality.mean_tiou if r.quality else None for r in rounds]),
        "pseudo-labels that are right": (ORANGE, [_right(r) for r in rounds]),
        "seeds: mean tIoU": ("#a9694a", [r.seed_quality.mean_tiou if r.seed_quality else None for r in rounds]),
        "labels of development videos: mean tIoU": (BLUE, [r.scores.get("dev_quality") for r in rounds]),
        "points score": (PURPLE, [r.scores.get("points") for r in rounds]),
        "classes score": ("#a58a1f", [r.scores.get("classes") for r in rounds] if not pointed else []),
        "agreement with last round": (MUTED, [r.change for r in rounds]),
    }
    sides = [("mAP, averaged over tIoUs", left), ("Pseudo-labels and points score", right)]
    sides = [(title, series) for title, series in sides if any(_known(v) for _, v in series.values())]
    if not sides:
        return None
    with styled():
        drawn = figure(5.0 * max(len(sides), 1.2), 3.7)
        for axes, (title, series) in zip(drawn.subplots(1, len(sides), squeeze=False)[0], sides, strict=True):
            if best is not None:
                axes.axvspan(best - 0.22, best + 0.22, color=MUTED, alpha=0.15, lw=0, label="selected round")
            percent = series is left
            for name, (colour, values) in series.items():
                if _known(values):
                    scaled = [np.nan if v is None else (100 * v if percent else v) for v in values]
                    style = "--" if name.startswith("seeds") else "-"  # they may lie on the pseudo-labels' line
                    axes.plot(at, scaled, style, color=colour, marker="o", label=name)
            axes.set_title(title)
            axes.set_xlabel("round (0 = proposer alone)")
            axes.set_ylabel("mAP [%]" if percent else "score, 0 to 1")
            axes.xaxis.set_major_locator(FixedLocator(at if len(at) <= 12 else at[:: -(-len(at) // 12)]))
            axes.yaxis.set_major_locator(_steps())
            axes.set_xlim(min(at) - 0.3, max(at) + 0.3)
            axes.margins(y=0.12)
            axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=2)
    return drawn


def _steps() -> MaxNLocator:
    """Ticks whose number does not depend on the size of the axes, which the layout still changes."""
    return MaxNLocator(nbins=6, steps=[1, 2, 5, 10])


def _known(values: Sequence[float | None]) -> bool:
    return any(v is not None and np.isfinite(v) for v in values)
