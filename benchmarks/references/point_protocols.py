"""Real points, real proposals and real ground truth of THUMOS14's training videos, for benchmarks of labelers.

Four kinds of points on the same 19,384 proposals (of POTLoc's base model): the released ones, which lie at the centre
of their instances; those of two human annotators; and points drawn anew, uniformly inside each instance, three times.
"""

from __future__ import annotations

import csv
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from tad.data.dataset import Dataset, Role
from tad.data.segments import Segments
from tad.evaluation.ground_truth import ground_truth
from tad.evaluation.quality_by_point import instance_of
from tad.methods.common.seeds import Proposals
from tad.methods.potloc.labeler import Grouped, GroupedPoints, grouped_points, grouped_proposals
from tad.methods.roles import Labeler
from tad.prepare.import_hrpro import import_hrpro
from tad.stages import Artifact, Context, Inputs, MapStage
from tests.support.rounds import round_of

DRAWS = 3
Point = tuple[str, str, float]
"""Video, class name, seconds."""


class Protocol(NamedTuple):
    """One kind of points, with what labelers read and what they are measured against."""

    name: str
    data: Dataset
    proposals: Artifact
    points: GroupedPoints
    """G points, ascending in video (by id), class and time."""
    grouped: Grouped
    """The proposals, of the same groups."""
    truth: np.ndarray
    """[G, 2] seconds: the point's own instance; NaN for a click outside every instance of its class."""

    @property
    def videos(self) -> list[str]:
        return sorted(self.data.videos("train"))

    @property
    def video(self) -> np.ndarray:
        """[G] rows of `videos`."""
        return self.points.group // len(self.data.classes)

    @property
    def label(self) -> np.ndarray:
        """[G] class indices."""
        return self.points.group % len(self.data.classes)

    def tuned(self) -> np.ndarray:
        """[G] bool: of the 40 videos on which the constants of labeler `points` were chosen."""
        return np.isin(self.video, np.random.default_rng(2026).permutation(len(self.videos))[:40])


class Once:
    """An engine in this process that runs map stages without a store."""

    def __init__(self, data: Dataset, folder: Path) -> None:
        self.data, self.seed, self.folder, self.made = data, 0, folder, 0

    def map(self, stage: MapStage, inputs: Inputs = None, role: Role = "train", number: int = 0) -> Artifact:
        context = Context(self.data, inputs or {}, self.data.videos(role), self.seed, round=number)
        function = stage.open(context)
        self.made += 1
        return adopted(Segments.concat(function(v) for v in context.videos), self.folder / str(self.made))

    def fit(self, *_: object) -> Artifact:
        raise NotImplementedError("the labelers measured here train nothing")


def adopted(segments: Segments, folder: Path) -> Artifact:
    """Segments as an artifact in a folder, which is made."""
    folder.mkdir(parents=True)
    segments.to_parquet(folder / "segments.parquet")
    return Artifact(folder.name, folder)


def protocols(shared: Path, folder: Path) -> Iterator[Protocol]:
    """All kinds of points, as dataset folders under `folder`.

    Args:
        shared: holds data/thumos14, data/potloc and data/human_points.
        folder: empty or new.
    """
    real = shared / "data"
    import_hrpro(real / "thumos14", folder / "released", features="none")
    proposals = adopted(Segments.from_file(real / "potloc" / "base_proposals.json"), folder / "proposals")
    released = protocol("released", Dataset.open(folder / "released"), proposals)
    yield released
    for k in (1, 2):
        clicks = human_points(real / "human_points" / "Thumos14" / f"THUMOS{k}.txt", released.data)
        yield protocol(f"annotator {k}", with_points(released.data, folder / f"annotator{k}", clicks), proposals)
    for draw in range(DRAWS):
        drawn = uniform_points(released, draw)
        yield protocol(f"uniform {draw}", with_points(released.data, folder / f"uniform{draw}", drawn), proposals)


def protocol(name: str, data: Dataset, proposals: Artifact) -> Protocol:
    """Points, proposals and ground truth of a dataset's training videos."""
    videos = sorted(data.videos("train"))
    points = grouped_points(data, videos)
    grouped = grouped_proposals(Proposals(Context(data, {"proposals": proposals}, videos, 0)), videos)
    annotated = ground_truth(data, "train")
    place = {v: i for i, v in enumerate(videos)}
    group = np.array([place[v] for v in annotated.video_ids]) * len(data.classes) + annotated.label_index(data.classes)
    truth, spans = np.full((len(points.time), 2), np.nan), annotated.spans
    for g in np.unique(points.group):
        mine, instances = np.flatnonzero(points.group == g), spans[group == g]
        own = instance_of(points.time[mine], instances)
        truth[mine[own >= 0]] = instances[own[own >= 0]]
    return Protocol(name, data, proposals, points, grouped, truth)


def with_points(data: Dataset, folder: Path, points: Iterable[Point]) -> Dataset:
    """A copy of a dataset folder without features, with other points."""
    folder.mkdir(parents=True)
    for name in ("dataset.yaml", "annotations.json", "ambiguous.csv"):
        if (data.root / name).is_file():
            shutil.copy(data.root / name, folder / name)
    with (folder / "points.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["video_id", "label", "time"])
        writer.writerows(points)
    return Dataset.open(folder)


def human_points(path: Path, data: Dataset) -> list[Point]:
    """The clicks on the training videos; those beyond a video's end are moved to it."""
    videos = set(data.videos("train"))
    rows = [line.split(",") for line in path.read_text().splitlines() if line.strip()]
    return [(v, label, min(float(time), data.duration(v))) for v, time, label in rows if v in videos]


def uniform_points(of: Protocol, seed: int) -> list[Point]:
    """A point anywhere in the instance of every point."""
    time = np.random.default_rng(seed).uniform(*of.truth.T)
    names, videos = of.data.classes, of.videos
    return [(videos[v], names[c], float(t)) for v, c, t in zip(of.video, of.label, time, strict=True)]


def pseudo_labels(of: Protocol, labeler: Labeler, folder: Path) -> Segments:
    """The pseudo-labels that a labeler makes; `folder` is for its files, and new."""
    return labeler.label(round_of(Once(of.data, folder), proposals=of.proposals)).segments.segments()


def labelled(of: Protocol, segments: Segments) -> np.ndarray:
    """[G, 2] the row of `segments` that answers to each point; NaN where there is none."""
    rows = zip(segments.video_ids, segments.labels, segments.point.tolist(), segments.spans, strict=True)
    found = {(video, label, time): span for video, label, time, span in rows}
    videos, classes = of.videos, of.data.classes
    keys = zip(of.video, of.label, of.points.time.tolist(), strict=True)
    return np.array([found.get((videos[v], classes[c], t), (np.nan, np.nan)) for v, c, t in keys])
