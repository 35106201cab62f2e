"""Quality of every labeler: `python -m benchmarks.studies.labelers --shared DIR [--json OUT] [--figure OUT.png]
[--ablation]`.

Real proposals of THUMOS14's training videos, real and re-drawn points (benchmarks.references.point_protocols), measured
against real ground truth: tIoU of each point's label with the point's own instance, 0 without a label. Clicks outside
every instance of their class are counted, not scored. Rows are the labelers of tad, simple rules beside them, and
oracles that see the ground truth (benchmarks.references.simple_labelers). These videos come without features, so PseR
refines its seeds by the posterior of `points`. Prints Markdown; `--ablation` takes labeler `points` apart instead.
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
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks.references import simple_labelers as rules
from benchmarks.references.point_protocols import Protocol, labelled, protocols, pseudo_labels
from benchmarks.studies import labelers_ablation as ablation
from tad.evaluation.quality_by_point import BUCKETS, SHARES
from tad.methods.hrpro.labeler import HrproLabeler
from tad.methods.points.labeler import PointsLabeler, learned_labels
from tad.methods.potloc.labeler import PotlocLabeler
from tad.methods.pser.labeler import PserLabeler
from tad.methods.pser.seed_labeler import SeedLabeler
from tad.methods.roles import Labeler
from tad.ops.iou import paired_tiou
from tad.report import style
from tad.stages import Context

ROWS: Mapping[str, Labeler | Callable[[Protocol], np.ndarray]] = {
    "highest-scoring proposal": rules.highest,
    "highest-scoring proposal, cut halfway": rules.highest_cut,
    "`potloc`, rule released": PotlocLabeler(rule="released"),
    "`potloc`, rule paper": PotlocLabeler(rule="paper"),
    "`potloc` (rule midpoints)": PotlocLabeler(),
    "`pser-seed`, faithful": SeedLabeler(faithful=True),
    "`pser-seed`": SeedLabeler(),
    "`pser`, without features": PserLabeler(),
    "`hrpro`, faithful": HrproLabeler(faithful=True),
    "`hrpro`": HrproLabeler(),
    "Gaussian fusion": rules.gaussian_fusion,
    "`potloc` released, proposals 0.28 s later": rules.later,
    "`potloc` released, centred on the point": rules.recentred,
    "`potloc` released, centred on the point, cut halfway": rules.recentred_cut,
    "`points`": PointsLabeler(),
    "oracle: best proposal, cut halfway": rules.oracle_proposal,
    "oracle: best of a bag of 81": rules.oracle_bag,
    "oracle: `points`, one factor for each class": rules.oracle_class_lengths,
    "oracle: `points`, true centres": rules.oracle_centre,
    "oracle: `points`, true lengths": rules.oracle_length,
}
POTLOC_SECONDS = 0.3
"""For POTLoc's labels of the 200 videos on one core."""
CHIEF = [
    "`potloc`, rule released",
    "`potloc` released, centred on the point, cut halfway",
    "`points`",
    "oracle: best proposal, cut halfway",
]
LEFT_OUT = [
    "highest-scoring proposal, cut halfway",
    "`hrpro`",
    "`pser`, without features",
    "`potloc` released, centred on the point",
]
"""Of the figure; `hrpro` and `pser` equal other rows."""
RESAMPLES = 2000


class Kind(NamedTuple):
    """The results of one row on one kind of points; draws of uniform points one after the other."""

    video: np.ndarray
    """[P] of the scored points."""
    label: np.ndarray
    """[P] class indices."""
    tuned: np.ndarray
    """[P] bool: of a video on which constants were chosen."""
    truth: np.ndarray
    """[P, 2] seconds."""
    spans: np.ndarray
    """[P, 2] seconds, NaN where there is none."""

    @property
    def tiou(self) -> np.ndarray:
        """[P] with the point's own instance."""
        return np.nan_to_num(paired_tiou(self.spans, self.truth))

    @property
    def octaves(self) -> np.ndarray:
        """[P] log2 of the label's length, in lengths of the instance."""
        with np.errstate(invalid="ignore"):
            return np.log2((self.spans[:, 1] - self.spans[:, 0]) / (self.truth[:, 1] - self.truth[:, 0]))

    def interval(self) -> tuple[float, float]:
        """95 % bootstrap interval of the mean tIoU, over videos."""
        total, count = np.bincount(self.video, self.tiou), np.bincount(self.video)
        drawn = np.random.default_rng(0).multinomial(len(count), np.full(len(count), 1 / len(count)), RESAMPLES)
        low, high = np.quantile(drawn @ total / (drawn @ count), [0.025, 0.975])
        return float(low), float(high)

    def to_json(self) -> dict[str, Any]:
        tiou, octaves = self.tiou, self.octaves
        return {
            "mean_tiou": float(tiou.mean()),
            "interval": self.interval(),
            "tuned": float(tiou[self.tuned].mean()),
            "held_out": float(tiou[~self.tuned].mean()),
            "share": {f"{t:g}": float((tiou >= t).mean()) for t in SHARES},
            "length_bias": float(np.nanmedian(octaves)),
            "length_error": float(np.nanmedian(np.abs(octaves))),
            "missing": int(np.isnan(octaves).sum()),
            "points": len(tiou),
        }


Results = dict[str, dict[str, Kind]]
"""By kind of points, then by row."""


def kind_of(of: Protocol, spans: np.ndarray) -> Kind:
    scored = ~np.isnan(of.truth[:, 0])
    return Kind(*(x[scored] for x in (of.video, of.label, of.tuned(), of.truth, spans)))


def measure(kinds: Sequence[Protocol], rows: Mapping[str, Callable[[Protocol], np.ndarray]]) -> Results:
    """Every row on every kind of points; draws of uniform points are pooled."""
    found: dict[str, dict[str, list[Kind]]] = {}
    for of in kinds:
        for name, row in rows.items():
            kind = found.setdefault(of.name.partition(" ")[0] if "uniform" in of.name else of.name, {})
            kind.setdefault(name, []).append(kind_of(of, row(of)))
    return {
        kind: {name: Kind(*map(np.concatenate, zip(*parts, strict=True))) for name, parts in row.items()}
        for kind, row in found.items()
    }


def by_labeler(labeler: Labeler, folder: Path) -> Callable[[Protocol], np.ndarray]:
    """The labels that a labeler's stage writes."""

    def row(of: Protocol) -> np.ndarray:
        with tempfile.TemporaryDirectory(dir=folder) as place:
            return labelled(of, pseudo_labels(of, labeler, Path(place)))

    return row


def speed(of: Protocol, folder: Path) -> str:
    """CPU seconds that each labeler takes for all videos, reading the proposals included; the best of three."""
    lines = []
    for name, labeler in ROWS.items():
        if callable(labeler):
            continue
        row, taken = by_labeler(labeler, folder), []
        for _ in range(3):
            start = time.process_time()
            row(of)
            taken.append(time.process_time() - start)
        bar = f" (bar {POTLOC_SECONDS})" if isinstance(labeler, PotlocLabeler) else ""
        lines.append(f"{name}: {min(taken):.2f} s{bar}")
    return f"CPU time for {len(of.videos)} videos\n\n" + "\n".join(lines)


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = ["| " + " | ".join(row) + " |" for row in [head, ["---", *["---:"] * (len(head) - 1)], *rows]]
    return "\n".join(lines).replace("| --- ", "|---").replace(" ---: |", "---:|")


def three(value: float) -> str:
    """Three decimals, without the zero before them."""
    return f"{value:.3f}".replace("0.", ".", 1)


def quality_tables(results: Results) -> str:
    head = ["", "mean tIoU", "95 % interval", "held-out 160", ">= .3", ">= .5", ">= .7", "length bias", "length error"]
    parts = []
    for kind, rows in results.items():
        lines = []
        for name, row in rows.items():
            x = row.to_json()
            low, high = x["interval"]
            shares = [f"{100 * v:.1f}" for v in x["share"].values()]
            length = [f"{x['length_bias']:+.2f}", f"{x['length_error']:.2f}"]
            lines.append(
                [name, three(x["mean_tiou"]), f"{three(low)}–{three(high)}", three(x["held_out"]), *shares, *length]
            )
        parts.append(f"### Points: {kind} ({len(next(iter(rows.values())).tiou):,} scored)\n\n{table(head, lines)}")
    return "\n\n".join(parts)


def slices(results: Results, classes: Sequence[str]) -> str:
    """Tables by class and by duration, for the chief rows on released points and on both annotators'."""
    released = {name: results["released"][name] for name in CHIEF}
    human = {name: [results[f"annotator {k}"][name] for k in (1, 2)] for name in CHIEF}
    some = next(iter(released.values()))
    length = some.truth[:, 1] - some.truth[:, 0]

    def line(name: str, inside: Callable[[Kind], np.ndarray], *more: str) -> list[str]:
        own = [three(x.tiou[inside(x)].mean()) for x in released.values()]
        two = [three(np.concatenate([x.tiou[inside(x)] for x in both]).mean()) for both in human.values()]
        return [name, str(int(inside(some).sum())), *more, *own, *two]

    heads = ["released", "centred", "`points`", "oracle"]
    head = ["points", *heads, *(f"{h} (clicks)" for h in heads)]
    by_class = [
        line(c, lambda x, i=i: x.label == i, f"{np.median(length[some.label == i]):.1f}") for i, c in enumerate(classes)
    ]
    by_length = []
    for low, high in pairwise(BUCKETS):

        def within(x: Kind, low: float = low, high: float = high) -> np.ndarray:
            size = x.truth[:, 1] - x.truth[:, 0]
            return (size >= low) & (size < high)

        bias = [f"{np.nanmedian(released[name].octaves[within(released[name])]):+.2f}" for name in (CHIEF[0], CHIEF[2])]
        by_length.append(line(f"{low:g}–{high:g} s" if np.isfinite(high) else f"over {low:g} s", within, *bias))
    return (
        "### By class\n\n"
        + table(["class", head[0], "median s", *head[1:]], by_class)
        + "\n\n### By duration\n\n"
        + table(["instance", head[0], "bias released", "bias `points`", *head[1:]], by_length)
    )


def learned(kinds: Sequence[Protocol]) -> str:
    """What labeler `points` found out, beside the truth."""
    lines = []
    for of in kinds:
        context = Context(of.data, {"proposals": of.proposals}, of.videos, 0)
        start = time.process_time()
        _, labels = learned_labels(PointsLabeler(), context)
        seconds = time.process_time() - start
        kind = kind_of(of, labels.spans)
        scored = ~np.isnan(of.truth[:, 0])
        true = (of.points.time[scored] - kind.truth[:, 0]) / (kind.truth[:, 1] - kind.truth[:, 0])
        place = (np.arange(len(labels.positions)) + 0.5) / len(labels.positions)
        mean = labels.positions @ place
        spread = np.sqrt(labels.positions @ (place - mean) ** 2)
        rank = [np.argsort(np.argsort(x)) for x in (labels.scores[scored], kind.tiou)]
        found, really = (f"{three(m)} ± {three(s)}" for m, s in ((mean, spread), (true.mean(), true.std())))
        lines.append(
            [
                of.name,
                f"{labels.lag:+.2f} s",
                found,
                really,
                three(labels.scores[scored].mean()),
                three(kind.tiou.mean()),
                three(np.corrcoef(*rank)[0, 1]),
                f"{seconds:.1f} s",
                str(int((~scored).sum())),
            ]
        )
    head = [
        "points",
        "lag found",
        "position found",
        "true position",
        "mean score",
        "mean tIoU",
        "rank correlation",
        "CPU time",
        "clicks outside",
    ]
    return f"### What `points` found out\n\n{table(head, lines)}"


def figure(results: Results, path: Path) -> None:
    """Mean tIoU with its interval for every row and kind of points."""
    names = [n for n in ROWS if n not in LEFT_OUT]
    colours = dict(zip(results, (style.ORANGE, style.BLUE, style.PURPLE, style.GREEN), strict=True))
    with style.styled():
        drawn = style.figure(8.0, 5.4)
        axes = drawn.subplots()
        for k, (kind, rows) in enumerate(results.items()):
            place = np.arange(len(names))[::-1] + 0.24 - 0.16 * k
            mean = np.array([rows[n].tiou.mean() for n in names])
            error = np.abs(np.array([rows[n].interval() for n in names]).T - mean)
            axes.errorbar(mean, place, xerr=error, fmt="o", ms=4, lw=1.4, color=colours[kind], label=kind)
        mine = len(names) - 1 - names.index("`points`")
        axes.axhspan(mine - 0.5, mine + 0.5, color=style.GRID, alpha=0.6)
        axes.set_yticks(np.arange(len(names))[::-1], [n.replace("`", "") for n in names])
        axes.set_ylim(-0.6, len(names) - 0.4)
        axes.grid(axis="y", visible=False)
        axes.set_xlabel("mean tIoU with the ground truth, 95 % interval over videos")
        axes.legend(title="points", loc="upper right")
        style.png(drawn, path)


def ablation_tables(kinds: Sequence[Protocol]) -> str:
    """Mean tIoU on the held-out videos, with parts taken away and constants changed."""
    parts = []
    for title, variants in (("Without a part", ablation.PARTS), ("Constants, changed", ablation.CONSTANTS)):
        rows = {name: lambda of, v=variant: ablation.spans(of, *v) for name, variant in variants.items()}
        results = measure(kinds, rows)
        lines = [[name, *(three(r[name].tiou[~r[name].tuned].mean()) for r in results.values())] for name in variants]
        parts.append(f"### {title}\n\n{table(['held-out 160 videos', *results], lines)}")
    return "\n\n".join(parts)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shared", type=Path, required=True, help="folder that holds data/")
    parser.add_argument("--json", type=Path, help="write all numbers here")
    parser.add_argument("--figure", type=Path, help="draw mean tIoU here (PNG)")
    parser.add_argument("--ablation", action="store_true", help="labeler `points` without a part at a time (minutes)")
    options = parser.parse_args()
    start = time.process_time()
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        kinds = list(protocols(options.shared, folder))
        if options.ablation:
            print(ablation_tables(kinds[:4]))
            return
        rows = {name: row if callable(row) else by_labeler(row, folder) for name, row in ROWS.items()}
        results = measure(kinds, rows)
        print(quality_tables(results), slices(results, kinds[0].data.classes), learned(kinds), sep="\n\n")
        print("", speed(kinds[0], folder), sep="\n")
        if options.json:
            document = {kind: {name: x.to_json() for name, x in row.items()} for kind, row in results.items()}
            options.json.write_text(json.dumps(document, indent=1) + "\n")
        if options.figure:
            figure(results, options.figure)
    print(f"\n{time.process_time() - start:.0f} CPU seconds.")


if __name__ == "__main__":
    main()
