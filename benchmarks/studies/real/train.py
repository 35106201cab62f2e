"""One result: a row with a seed, trained, detected and judged."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.references import shrec22_track as track
from benchmarks.studies.real import judge
from benchmarks.studies.real.data import Part, labelled
from benchmarks.studies.real.probe import probe
from benchmarks.studies.real.rows import WAYS, Row, Way
from distributed.engine.engine import Engine
from distributed.engine.record import Record
from distributed.engine.store import Store
from tad.data.dataset import Dataset, Role
from tad.data.segments import Segments
from tad.errors import ConfigError
from tad.evaluation.ground_truth import ground_truth
from tad.files import read_json, write_json
from tad.recipe.recipe import load_recipe
from tad.recipe.rounds import Rounds
from tad.stages import Artifact, FitStage, Inputs, MapStage

READS = "test-reads.json"


@dataclass
class Timed(Engine):
    """Keeps the CPU seconds of every stage that it makes, and knows those of the stages that it finds made.

    Attributes:
        seconds: by stage, of all that was asked for.
    """

    seconds: dict[str, float] = field(default_factory=dict)

    def fit(self, stage: FitStage, inputs: Inputs = None, number: int = 0) -> Artifact:
        return self._timed(lambda: super(Timed, self).fit(stage, inputs, number))

    def map(self, stage: MapStage, inputs: Inputs = None, role: Role = "train", number: int = 0) -> Artifact:
        return self._timed(lambda: super(Timed, self).map(stage, inputs, role, number))

    def _timed(self, make: Callable[[], Artifact]) -> Artifact:
        start = time.process_time()
        artifact = make()
        note = artifact.path.parents[1] / "cpu" / f"{artifact.fingerprint}.json"
        if not note.is_file():
            note.parent.mkdir(exist_ok=True)
            write_json(note, round(time.process_time() - start, 2))
        self.seconds[artifact.fingerprint] = float(read_json(note))
        return artifact


class Made(NamedTuple):
    """What a row gave, before it is judged.

    Attributes:
        found: detections in the videos of the part.
        on_train: makes those in the training videos.
        labels: the last round's pseudo-labels.
        seconds: CPU time of all stages behind the detections, whichever row made them.
    """

    found: Segments
    on_train: Callable[[], Segments]
    labels: Segments | None
    seconds: float


def place(out: Path, row: Row, seed: int, part: Part) -> Path:
    """The file of a result."""
    return out / part / f"{row.name.replace('/', '-')}-seed-{seed}.json"


def result(row: Row, seed: int, part: Part, out: Path) -> dict[str, Any]:
    """Trains and judges. Results of the test part say how often their row was read there, however often it was removed.

    Raises:
        TadError: the recipe does not fit the labels, or a stage failed.
    """
    data = labelled(row.dataset, row.labels, part, out)
    way = WAYS[row.way]
    if part == "test":
        reads = read_again(out, f"{row.name} seed {seed}")
    made = by_probe(data, seed, part) if way is None else by_recipe(way, row, data, seed, part, out)
    threshold, origin = chosen_threshold(made, row, data, seed, part, out)
    document: dict[str, Any] = {
        **row.document(),
        "seed": seed,
        "part": part,
        "map": judge.mean_ap(made.found, data, part),
        "f1": judge.f1(made.found, threshold, data, part),
        "threshold": threshold,
        "threshold_from": origin,
        "labels_quality": judge.quality(made.labels, data) if made.labels is not None else None,
        "seconds": round(made.seconds, 1),
        "commit": commit(),
    }
    if part == "test":
        document["reads"] = reads
        if row.dataset == "shrec22":
            document["track"] = by_track(made.found, threshold, data)
    return document


def by_recipe(way: Way, row: Row, data: Dataset, seed: int, part: Part, out: Path) -> Made:
    """The ground truth of a row with labeler `full` teaches its detector alone: the proposer keeps the row's labels."""
    recipe = load_recipe(way.recipe, way.overrides)
    known = labelled(row.dataset, "full", part, out) if recipe.labeler.method == "full" else data
    if problems := recipe.problems(known):
        raise ConfigError(f"{row.name}: {'; '.join(problems)}")
    record = Record(out / "runs" / f"{part}-{row.name.replace('/', '-')}-seed-{seed}")
    engine = Timed(data, Store(out / "store"), record, seed)
    rounds = Rounds(recipe, engine)
    if known is not data:
        rounds = Rounds(recipe, engine.over(known), {0: rounds.model(0)})
    last = recipe.rounds
    found = rounds.detections(last, part)
    labels = rounds.labels(last).segments.segments() if last else None
    seconds = sum(engine.seconds.values())
    return Made(found.segments(), lambda: rounds.detections(last, "train").segments(), labels, seconds)


def by_probe(data: Dataset, seed: int, part: Part) -> Made:
    start = time.process_time()
    found = probe(data, ("train", part), seed)
    return Made(found[part], lambda: found["train"], None, time.process_time() - start)


def chosen_threshold(made: Made, row: Row, data: Dataset, seed: int, part: Part, out: Path) -> tuple[float, str]:
    """The score from which detections count for F1, and whose F1 it is best for: dev videos', else training videos'."""
    if part == "dev":
        return judge.best_threshold(made.found, data, "dev"), "dev"
    if (earlier := place(out, row, seed, "dev")).is_file():
        return float(read_json(earlier)["threshold"]), "dev"
    return judge.best_threshold(made.on_train(), data, "train"), "train"


def by_track(found: Segments, threshold: float, data: Dataset) -> dict[str, Any]:
    """The measures of the SHREC 2022 track on the test videos."""
    videos = data.videos("test")
    kept = track.sequences_of(found.filter(found.score >= threshold), videos)
    reached = track.measures(kept, track.sequences_of(ground_truth(data, "test"), videos))
    return reached._asdict() | {"f1": dict(zip(map(str, track.TIOUS), reached.f1, strict=True))}


def read_again(out: Path, name: str) -> int:
    """Counts one more reading of the test videos, before it happens."""
    reads = read_json(out / READS) if (out / READS).is_file() else {}
    reads[name] = reads.get(name, 0) + 1
    out.mkdir(parents=True, exist_ok=True)
    write_json(out / READS, reads)
    return int(reads[name])


@cache
def commit() -> str:
    """Of the code when this process first asks; "+" if files were changed since."""
    here = Path(__file__).resolve().parent

    def git(*words: str) -> str:
        return subprocess.run(["git", "-C", str(here), *words], capture_output=True, text=True, check=False).stdout

    head = git("rev-parse", "--short", "HEAD").strip() or "unknown"
    return head + ("+" if git("status", "--porcelain", "--untracked-files=no").strip() else "")
