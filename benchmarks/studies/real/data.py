"""The two datasets of the benchmark, with other labels of their training videos and with a dev part.

Parts: "dev" holds out a quarter of the training videos, of people or sessions of their own, the same for all labels and
seeds, and has no test videos; in "test" all training videos train, and the test videos judge.

Labels of the training videos:

* points: as given with the data. uniform: one anywhere in each action. late: the given ones, a fifth of the action's
  length later, but inside it. The last two read boundaries to make labels, as an annotator would; training never does.
* classes: of each video. full: all boundaries. full10, full40: of a tenth and of two fifths of the videos, nothing of
  the others.
* full10-points: boundaries of a tenth, points of the others. several: boundaries of a tenth, points of three tenths,
  classes of four, nothing of two.
"""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np

from tad.data.dataset import Dataset, Role
from tad.data.labels import Points
from tad.data.segments import Segments
from tad.evaluation.ground_truth import segments_of
from tad.evaluation.quality_by_point import instance_of
from tad.files import read_json
from tad.prepare.derive import roles_of, sources, write_derived
from tad.prepare.output import output_folder
from tad.prepare.relabel import Kind, derive_labels, draw_kinds, one_kind, split_labelled

Part = Literal["dev", "test"]
DATASETS = ("shrec22", "sbhar")
DEV_SHARE = 0.25
SEED = 0
"""Of the dev part, the drawn points and the labelled videos: all rows and training seeds see the same."""
LATER = 0.2
INSIDE = 0.98
"""Share of an action's length that a shifted point stays before."""
BLOCK = 36
"""Sequences of a block of shrec22."""
SHARES = {"full10": 0.1, "full40": 0.4}
MIXES: dict[str, dict[Kind, float]] = {
    "full10-points": {"full": 0.1, "points": 0.9},
    "several": {"full": 0.1, "points": 0.3, "classes": 0.4, "none": 0.2},
}


def source(dataset: str) -> Path:
    """The folder of a dataset of the benchmark; another one is a folder itself.

    Raises:
        SystemExit: it is not there.
    """
    if dataset not in DATASETS:
        if not (Path(dataset) / "dataset.yaml").is_file():
            raise SystemExit(f"{dataset}: neither {' nor '.join(DATASETS)} nor a dataset folder")
        return Path(dataset)
    shared = os.environ.get("TAD_SHARED")
    folder = Path(shared or ".") / "data" / dataset
    if not shared or not (folder / "dataset.yaml").is_file():
        raise SystemExit(
            f"{folder}: no such dataset. The recordings are no part of this project; set TAD_SHARED to the folder that "
            "holds data/shrec22 and data/sbhar (docs/results/real.md says what they are)"
        )
    return folder


def labelled(dataset: str, labels: str, part: Part, work: Path) -> Dataset:
    """A part of a dataset with one kind of labels, written under `work` if it is not there yet."""
    name = Path(dataset).name
    folder = work / "data" / f"{name}-{labels}-{part}"
    if (folder / "dataset.yaml").is_file():
        return Dataset.open(folder)
    pointed = labels if labels in ("points", "uniform", "late") else "points"
    base = work / "data" / f"{name}-{pointed}-{part}"
    if not (base / "dataset.yaml").is_file():
        data = Dataset.open(source(dataset))
        data = replace(data, points_by_id=points_of(data, pointed))
        with output_folder(base, "split", sources=sources(data)) as fresh:
            write_derived(data, roles(data, part), fresh, base.name)
    data = Dataset.open(base)
    if labels == pointed:
        return data
    if labels in SHARES:
        split_labelled(data, SHARES[labels], "stratified", SEED, folder)
    else:
        mix = MIXES.get(labels)
        kinds = draw_kinds(data, mix, SEED) if mix else one_kind(data, "full" if labels == "full" else "classes")
        derive_labels(data, kinds, folder, name=folder.name)
    return Dataset.open(folder)


def points_of(data: Dataset, protocol: str) -> dict[str, Points]:
    """The points of every training video by a protocol."""
    if protocol == "points":
        return dict(data.points_by_id)
    rng = np.random.default_rng([SEED, 2])
    videos = data.videos("train")
    truth = segments_of(data, videos).by_video()
    found = {}
    for video in videos:
        actions = truth.get(video, Segments.empty())
        start, length = actions.start, actions.end - actions.start
        if protocol == "uniform":
            time, label = start + length * rng.uniform(size=len(actions)), actions.label_index(data.classes)
        else:
            time, label = data.points(video)
            own = _instances(time, label, actions, data.classes)
            time = np.minimum(time + LATER * length[own], start[own] + INSIDE * length[own])
        order = np.argsort(time, kind="stable")
        found[video] = Points(time[order], label[order])
    return found


def _instances(time: np.ndarray, label: np.ndarray, actions: Segments, classes: list[str]) -> np.ndarray:
    """[P] the row of `actions` that each point lies in; given points all lie in one of their class."""
    own, codes = np.full(len(time), -1), actions.label_index(classes)
    for c in np.unique(label):
        rows = np.flatnonzero(codes == c)
        own[label == c] = rows[instance_of(time[label == c], actions.spans[rows])]
    return own


def roles(data: Dataset, part: Part) -> dict[str, Role]:
    """The role of each video that takes part."""
    if part == "test":
        return roles_of(data)
    held = held_out(data)
    return {video: "dev" if video in held else "train" for video in data.videos("train")}


def held_out(data: Dataset) -> set[str]:
    """The dev videos: those of a quarter of the groups, so that no group is on both sides."""
    group = groups(data)
    names = sorted(set(group.values()))
    chosen = np.random.default_rng(SEED).permutation(names)[: round(DEV_SHARE * len(names))].tolist()
    return {video for video, own in group.items() if own in chosen}


def groups(data: Dataset) -> dict[str, int]:
    """What belongs together among the training videos: those of one person, where the annotations name people.

    The training sequences of shrec22 are numbered in four blocks, each with twelve sequences of three, four and five
    gestures and nine gestures of every class. Features drift from block to block, and a probe that has seen sequences
    of a block does better on its others: so a block is taken for one person or session.
    """
    entries, videos = read_json(data.root / "annotations.json")["database"], data.videos("train")
    return {video: entries[video].get("subject", i // BLOCK) for i, video in enumerate(videos)}
