"""A study in pictures, drawn by Optuna with matplotlib."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import optuna

from distributed.tuning.summary import Summary

MOST = 6
"""Parameters in the slice figure, the most important ones; a contour needs two."""


def write_figures(study: optuna.Study, summary: Summary, objective: str, folder: Path) -> list[Path]:
    """History, importance, slices, contour, Pareto front of two objectives: those for which the trials suffice."""
    import matplotlib

    matplotlib.use("Agg")
    from optuna.visualization import matplotlib as draw

    if summary.best is None:
        return []
    two = len(study.directions) > 1
    one: dict[str, Any] = {"target": lambda t: t.values[0], "target_name": objective}
    names = [name for name, _ in summary.importances]
    figures: dict[str, Any] = {"history": lambda: draw.plot_optimization_history(study, **one)}
    if names:
        figures["importance"] = lambda: draw.plot_param_importances(study, **one)
        figures["slice"] = lambda: draw.plot_slice(study, params=names[:MOST], **one)
    if len(names) > 1:
        figures["contour"] = lambda: draw.plot_contour(study, params=names[:2], **one)
    if two:
        figures["pareto"] = lambda: draw.plot_pareto_front(study, target_names=[objective, "cost in seconds"])
    folder.mkdir(exist_ok=True)
    written = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Optuna calls its matplotlib figures experimental
        for name, function in figures.items():
            written.append(_save(function(), folder / f"{name}.png"))
    return written


def _save(axes: Any, path: Path) -> Path:
    import matplotlib.pyplot as plt
    import numpy as np

    figure = np.ravel(np.asarray(axes, dtype=object))[0].figure
    width, height = figure.get_size_inches()
    figure.set_size_inches(max(width, 8), max(height, 5))
    box = figure.get_tightbbox(figure.canvas.get_renderer())  # "tight" would draw the figure once more to find it
    figure.savefig(path, dpi=110, bbox_inches=box.padded(0.1))
    plt.close(figure)
    return path
