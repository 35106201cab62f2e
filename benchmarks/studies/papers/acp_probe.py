"""Linear probes of contrastive pre-training: `python -m benchmarks.studies.papers.acp_probe --out DIR`.

APL, Tables S2 and S5. A linear classifier of single rows, of input features or of what the pre-trained pyramid makes of
them, names each row's class or background. Pre-training reads no label; the probe learns from all boundaries of the
training videos, which no recipe of few labels may, and is judged on the rows of the dev videos. Recordings, parts and
seeds are those of benchmarks.studies.real, whose DIR this may share. Prints a Markdown table.
"""

# ruff: noqa: E402 - thread counts must be set before numpy is loaded
from __future__ import annotations

import os

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"):
    os.environ[_name] = "1"

import argparse
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from benchmarks.studies.real.data import DATASETS, labelled
from benchmarks.studies.real.probe import row_classes, trained
from distributed.engine.engine import Engine
from distributed.engine.record import Record
from distributed.engine.store import Store
from tad.data.dataset import Dataset, Role
from tad.data.segments import Segments
from tad.evaluation.ground_truth import ground_truth
from tad.methods.apl.contrastive_pyramid import NETWORK, Encoder, pretrain
from tad.methods.common.windows import pack, refine
from tad.recipe.recipe import load_recipe
from tad.recipe.rounds import Rounds

SHARE = "full10"
"""Labels of the recipe: they say how long actions are, from which the network's sizes follow."""


class Line(NamedTuple):
    """A row of the tables, with the paper's accuracy and recall [%]."""

    text: str
    paper: tuple[float | None, float | None] = (None, None)
    batch: int = 2
    clusters: int = 4
    """Fine ones, over the frames of a batch."""


INPUT = Line("input features", (72.1, 66.3))
START = Line("pyramid as it starts, untrained")
LINES = (
    INPUT,
    START,
    Line("pre-trained, batches of 2, 2 clusters", (71.0, 70.1), clusters=2),
    Line("pre-trained, batches of 2, 3 clusters", (72.8, 73.5), clusters=3),
    Line("pre-trained, batches of 2, 4 clusters (the paper's)", (76.2, 73.0)),
    Line("pre-trained, batches of 4, 4 clusters", (72.4, None), batch=4),
    Line("pre-trained, batches of 4, 5 clusters", (73.9, None), batch=4, clusters=5),
    Line("pre-trained, batches of 4, 8 clusters", (75.0, None), batch=4, clusters=8),
)


def probed(dataset: str, seed: int, out: Path, line: Line) -> tuple[float, float]:
    """Accuracy over the rows of dev videos and mean recall over classes and background [%]."""
    data = labelled(dataset, SHARE, "dev", out)
    encoder = None if line is INPUT else pretrained(data, seed, out, line)
    taught, asked = rows(data, "train", encoder), rows(data, "dev", encoder)
    mean, spread = taught[0].mean(0), taught[0].std(0) + 1e-6
    layer = trained((taught[0] - mean) / spread, taught[1], len(data.classes) + 1, seed)
    with torch.no_grad():
        right = layer((asked[0] - mean) / spread).argmax(1) == asked[1]
    recalls = [right[asked[1] == c].double().mean().item() for c in asked[1].unique()]
    return 100 * right.double().mean().item(), 100 * float(np.mean(recalls))


def pretrained(data: Dataset, seed: int, out: Path, line: Line) -> tuple[Encoder, int]:
    """The pyramid of recipe apl-small, pre-trained but for `START`, and its rows for each snippet."""
    changes = [f"proposer.training.batch_size={line.batch}", f"proposer.pretrain.clusters={line.clusters}"]
    recipe = load_recipe("apl-small", changes)
    engine = Engine(data, Store(out / "store"), Record(out / "runs" / "acp-probe", quiet=True), seed)
    proposer: Any = recipe.proposer
    artifact = pretrain(Rounds(recipe, engine).round(0), proposer.pretrain, proposer.training)
    saved = artifact.model()
    torch.manual_seed(seed)
    encoder = Encoder(**{name: saved["settings"][name] for name in NETWORK})
    if line is not START:
        encoder.load_state_dict(saved["state"])
    return encoder.eval(), saved["settings"]["upsample"]


def rows(data: Dataset, role: Role, encoder: tuple[Encoder, int] | None) -> tuple[torch.Tensor, torch.Tensor]:
    """What a probe sees of each row of a role's videos [R, W], and the row's true class [R]."""
    truth, seen, labels = ground_truth(data, role).by_video(), [], []
    for video in data.videos(role):
        features = np.asarray(data.features(video), dtype=np.float32)
        actions = truth.get(video, Segments.empty())
        labels.append(torch.from_numpy(row_classes(data, video, actions.spans, actions.label_index(data.classes))))
        seen.append(torch.from_numpy(features) if encoder is None else represented(features, *encoder))
    return torch.cat(seen), torch.cat(labels)


@torch.no_grad()
def represented(features: np.ndarray, encoder: Encoder, factor: int) -> torch.Tensor:
    """All levels of the pyramid at each row, [T, L * W]."""
    windows, video, _ = pack([refine(features, factor)], encoder.levels)
    frames = torch.arange(len(features))[None] * factor
    return encoder(windows, video, frames)[0]


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.studies.papers.acp_probe",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="store and datasets")
    parser.add_argument("--data", choices=DATASETS, default="shrec22")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    options = parser.parse_args()
    torch.set_num_threads(1)
    print("| rows | accuracy | by seed | recall | by seed | paper: accuracy | recall |")
    print("| --- | ---: | --- | ---: | --- | ---: | ---: |")
    for line in LINES:
        found = np.array([probed(options.data, seed, options.out.resolve(), line) for seed in options.seeds])
        figures = ("" if x is None else f"{x:.1f}" for x in line.paper)
        cells = [f"{column.mean():.1f} | {' '.join(f'{x:.1f}' for x in column)}" for column in found.T]
        print(f"| {line.text} | {' | '.join(cells)} | {' | '.join(figures)} |", flush=True)


if __name__ == "__main__":
    main()
