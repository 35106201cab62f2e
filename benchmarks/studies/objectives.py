"""How well scores without boundaries order models.

`python -m benchmarks.studies.objectives --data DIR --work DIR --shared DIR`: the dataset is a folder with features and
ground truth, for instance THUMOS14's videos with synthetic features:

    tad import hrpro SHARED/data/thumos14 thumos14 && tad synth thumos14 --dim 256

A fifth of its training points is held out. Then come the configurations of benchmarks.studies.objectives_data, the
designs of benchmarks.studies.objectives_designs, and the rank correlation (Spearman) of every design with true mAP: of
the same detections, and of the same configuration on videos that took no part. Labelers are measured on real proposals
(benchmarks.studies.objectives_labels) by their true mean tIoU. Prints Markdown. WORK keeps what was trained.
"""

# ruff: noqa: E402 - thread counts must be set before numpy is loaded
from __future__ import annotations

import os

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"):
    os.environ[_name] = "1"

import argparse
import json
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.references.point_protocols import protocols
from benchmarks.studies import objectives_labels
from benchmarks.studies.objectives_data import configurations
from benchmarks.studies.objectives_designs import CHOSEN, OF_POINTS, OF_SEGMENTS, all_scores
from tad.data.dataset import Dataset
from tad.prepare.split import split_holdout
from tad.report import style

HIDDEN = 0.2
DESIGNS = (*OF_POINTS, *OF_SEGMENTS)
TRUTH = "true mAP on the same videos"
"""Beside the designs: what the boundaries themselves would say."""
GOOD = 0.2
"""True mAP on unseen videos above which a configuration is one that somebody would choose from."""
KINDS = ("released", "annotator 1", "annotator 2", "uniform 0")


def spearman(a: np.ndarray, b: np.ndarray) -> float:
    """Rank correlation, ties at their mean rank; NaN if either does not vary."""
    ranks = []
    for values in (a, b):
        _, place, count = np.unique(values, return_inverse=True, return_counts=True)
        ranks.append((np.cumsum(count) - (count - 1) / 2)[place])
    if min(x.std() for x in ranks) == 0:
        return float("nan")
    return float(np.corrcoef(ranks)[0, 1])


def measure(data: Dataset, work: Path) -> list[dict[str, Any]]:
    """One row for each configuration: what it is, true values, and each design's."""
    rows = []
    for found in configurations(data, work):
        values = all_scores(found.detections, found.around)
        row = {"name": found.name, "kind": found.kind, "base": found.base}
        rows.append(row | {"train": found.train_map, "unseen": found.unseen_map, "scores": values})
    return rows


def value(row: Mapping[str, Any], design: str) -> float:
    return float(row["train"] if design == TRUTH else row["scores"][design])


def shown(number: float) -> str:
    return "–" if np.isnan(number) else f"{number:.3f}"


def ladder(rows: Sequence[Mapping[str, Any]], design: str) -> float:
    """Mean, over outputs whose lengths were falsified, of the rank correlation along the factors (and 1)."""
    found: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        if row["kind"] == "scaled":
            found.setdefault(row["name"].rpartition(" x ")[0], []).append(row)
    of = {row["name"]: row for row in rows}
    along = [
        spearman(*(np.array(x) for x in zip(*((value(r, design), r["train"]) for r in [*part, of[name]]), strict=True)))
        for name, part in found.items()
    ]
    return float(np.nanmean(along))


def table(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    rule = ["---", *["---:"] * (len(head) - 1)]
    return "\n".join("| " + " | ".join(x) + " |" for x in [head, rule, *lines])


def detections_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Every design's rank correlation, over groups of configurations."""
    real = [r for r in rows if r["kind"] != "scaled"]
    groups: list[tuple[str, str, Sequence[Mapping[str, Any]]]] = [
        (f"all, same videos ({len(rows)})", "train", rows),
        (f"real, same videos ({len(real)})", "train", real),
        (f"real, unseen videos ({len(real)})", "unseen", real),
    ]
    for name in ("proposals", "detector"):
        part = [r for r in real if r["kind"] == name]
        groups.append((f"{name}, unseen ({len(part)})", "unseen", part))
    good = [r for r in real if r["unseen"] >= GOOD]
    groups.append((f"mAP >= {GOOD:g}, unseen ({len(good)})", "unseen", good))
    lines = []
    for design in (*DESIGNS, TRUTH):
        values = [
            spearman(np.array([value(r, design) for r in part]), np.array([r[key] for r in part]))
            for _, key, part in groups
        ]
        lines.append([design, *map(shown, [*values, ladder(rows, design)])])
    return table(["score", *(name for name, _, _ in groups), "along falsified lengths"], lines)


def labels_tables(shared: Path, found: dict[str, Any]) -> str:
    """The same for labelers on real proposals."""
    lines = []
    with tempfile.TemporaryDirectory() as place:
        for of in protocols(shared, Path(place) / "data"):
            if of.name not in KINDS:
                continue
            names, truth, designs = objectives_labels.measure(of, Path(place))
            model = np.array([name.startswith("points") for name in names])
            found[of.name] = {"names": names, "mean_tiou": truth.tolist()} | {n: v.tolist() for n, v in designs.items()}
            for design, values in designs.items():
                parts = (np.ones_like(model), ~model, model)
                lines.append([of.name, design, *(shown(spearman(values[p], truth[p])) for p in parts)])
            count = [f"all ({len(model)})", f"without `points` ({(~model).sum()})", f"`points` alone ({model.sum()})"]
    return table(["points", "score", *count], lines)


def figure(rows: Sequence[Mapping[str, Any]], path: Path) -> None:
    """True mAP on unseen videos against the chosen score and against precision over points."""
    colours = {"proposals": style.BLUE, "detector": style.ORANGE}
    with style.styled():
        drawn = style.figure(9.0, 4.2)
        for axes, design in zip(
            drawn.subplots(1, 2), (CHOSEN, "average precision over points, seen ones"), strict=True
        ):
            for kind, colour in colours.items():
                part = [r for r in rows if r["kind"] == kind]
                axes.scatter(
                    [r["scores"][design] for r in part],
                    [100 * r["unseen"] for r in part],
                    s=18,
                    color=colour,
                    label=kind,
                )
            axes.set_xlabel(design)
            axes.set_ylabel("true mAP .1 to .7 on unseen videos [%]")
            axes.legend(loc="lower right")
        style.png(drawn, path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="dataset folder with features and ground truth")
    parser.add_argument("--shared", type=Path, help="folder that holds data/, for labelers on real proposals")
    parser.add_argument("--work", type=Path, required=True, help="what is trained is kept here")
    parser.add_argument("--json", type=Path, help="write all numbers here")
    parser.add_argument("--figure", type=Path, help="draw the scatter plot here (PNG)")
    options = parser.parse_args()
    start = time.process_time()
    folder = options.work / "data"
    if not (folder / "dataset.yaml").is_file():
        split_holdout(Dataset.open(options.data), None, HIDDEN, 0, folder)
    rows = measure(Dataset.open(folder), options.work)
    document: dict[str, Any] = {"detections": rows}
    print(f"### Detections\n\n{detections_table(rows)}", flush=True)
    if options.shared:
        document["labels"] = {}
        print(f"\n### Labelers on real proposals\n\n{labels_tables(options.shared, document['labels'])}")
    if options.json:
        options.json.write_text(json.dumps(document) + "\n")
    if options.figure:
        figure(rows, options.figure)
    print(f"\n{time.process_time() - start:.0f} CPU seconds.")


if __name__ == "__main__":
    main()
