"""A run's folder as typed objects. Unfinished and failed runs are read as far as they got."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from tad.data.segments import Segments
from tad.errors import DataError, few, listing
from tad.evaluation.operating_point import POINT_FILE, OperatingPoint, read_operating_point
from tad.files import parse_json, read_json, regular
from tad.report.budget import LabelBudget

KEY = re.compile(r"^[0-9a-f]{24}$")
"""An artifact's key; nothing else of a run's folder may become part of a path."""
MOST_BYTES = 256 << 20
"""Of a file of a run's folder; the largest that is known has 4 MB."""
LONGEST_LINE = 1 << 20


class _Part(BaseModel):
    # Not strict: a report should also open runs of a neighbouring version, which know more or fewer keys.
    model_config = ConfigDict(extra="ignore", frozen=True)


class DatasetInfo(_Part):
    """What run.json says about the dataset."""

    name: str = "?"
    root: str = ""
    classes: list[str] = Field(default_factory=list)
    videos: dict[str, int] = Field(default_factory=dict)
    points: int = 0


class TrackingInfo(_Part):
    """Where a run is tracked."""

    uri: str | None = None
    run_id: str | None = None


class DriverInfo(_Part):
    """The process that runs it, or ran it last (distributed/run/identity.py)."""

    host: str
    boot: str
    space: str
    pid: int
    born: int


class RunInfo(_Part):
    """run.json."""

    recipe_name: str
    recipe: dict[str, Any]
    dataset: DatasetInfo
    seed: int = 0
    select: str = "points"
    labels: LabelBudget | None = None
    state: str = "running"
    started: str | None = None
    seconds: float | None = None
    best_round: int | None = None
    versions: dict[str, str | None] = Field(default_factory=dict)
    tracking: TrackingInfo | None = None
    driver: DriverInfo | None = None
    signal: str | None = None
    store: str | None = None
    command: str | None = None
    scores: dict[str, str] = Field(default_factory=dict)

    def keys_of_scores(self) -> dict[str, str]:
        """Role to the artifact of its snippet scores. Earlier versions wrote the artifact's path; only its last part,
        the artifact's key, is looked at: where to look is for the user to say."""
        found = {role: Path(value).name for role, value in self.scores.items()}
        return {role: key for role, key in found.items() if KEY.fullmatch(key)}


class ClassScores(_Part):
    """AP of one class; fractions."""

    ap: dict[str, float | None] = Field(default_factory=dict)
    average: float | None = None
    ground_truth: int | None = None
    detections: int | None = None


class MapScores(_Part):
    """mAP of one round on one role's videos; fractions."""

    mAP: dict[str, float | None] = Field(default_factory=dict)
    average: float | None = None
    averages: dict[str, float | None] = Field(default_factory=dict)
    per_class: dict[str, ClassScores] = Field(default_factory=dict)
    counts: dict[str, Any] = Field(default_factory=dict)


class QualityScores(_Part):
    """Pseudo-labels (or seeds) against ground truth; fractions."""

    mean_tiou: float | None = None
    share: dict[str, float | None] = Field(default_factory=dict)
    points: int | None = None
    missing: int | None = None


class InstanceScores(_Part):
    """Pseudo-labels of videos that are not fully labelled against ground truth, label by label; fractions."""

    labels: int | None = None
    class_accuracy: float | None = None
    mean_tiou: float | None = None
    hits: float | None = None
    recall: float | None = None


class Round(_Part):
    """One row of rounds.json; round 0 is the proposer alone."""

    round: int
    model: str | None = Field(default=None, pattern=KEY.pattern)
    seconds: float | None = None
    labels: int | None = None
    quality: QualityScores | None = None
    seed_quality: QualityScores | None = None
    instance_quality: InstanceScores | None = None
    change: float | None = None
    scores: dict[str, float | None] = Field(default_factory=dict)
    train_map: MapScores | None = None
    test_map: MapScores | None = None
    selected: bool = False


@dataclass
class StageRun:
    """One stage as events.jsonl tells it.

    Attributes:
        round: self-training round, None where the record does not say.
        fold: "1 of 3" of a stage that was run for the operating point alone; else empty.
        state: running (or stopped half-way), done, or cached: the artifact was already there.
        epochs: metrics of each epoch; of an epoch that was repeated after a restart, the last.
        derived: value and reason of each option that was derived from the data.
    """

    name: str
    role: str
    round: int | None
    state: str = "running"
    seconds: float | None = None
    epochs: dict[int, dict[str, float]] = field(default_factory=dict)
    fold: str = ""
    derived: dict[str, tuple[str, str]] = field(default_factory=dict)


@dataclass(frozen=True)
class Run:
    """An opened run folder.

    Attributes:
        stages: in the order in which they were first met.
        warnings: what the run warned of, and the videos that failed.
    """

    folder: Path
    info: RunInfo
    rounds: list[Round]
    stages: list[StageRun]
    warnings: list[str]

    @classmethod
    def open(cls, folder: Path | str) -> Run:
        """Reads run.json, rounds.json and events.jsonl; the last two may be absent.

        The folder may be somebody else's: nothing is read but regular files below it.

        Raises:
            DataError: not a run's folder, or a file of it is malformed; every problem of that file is listed.
        """
        folder = Path(folder).expanduser().resolve()
        if not (folder / "run.json").exists():
            reason = "no such folder" if not folder.is_dir() else "not a run's folder, it holds no run.json"
            raise DataError(
                f"{folder}: {reason}; expected what `tad run` writes: run.json, rounds.json, events.jsonl, round-N/"
            )
        info = read_info(folder)
        path = inside(folder, "rounds.json")
        rounds: list[Round] = _read(path, TypeAdapter(list[Round])) if path.exists() else []
        stages, warnings = _events(inside(folder, "events.jsonl"))
        return cls(folder, info, sorted(rounds, key=lambda r: r.round), stages, warnings)

    def segments(self, number: int, name: str) -> Segments | None:
        """RUN/round-NUMBER/NAME.parquet, or None where it is absent.

        Raises:
            DataError: the file is there but cannot be read.
        """
        path = inside(self.folder, f"round-{number}", f"{name}.parquet")
        return Segments.from_parquet(regular(path)) if path.exists() else None

    def detections(self, number: int, role: str) -> Segments | None:
        """A round's detections on the train or test videos; of round 0, the proposals."""
        name = "proposals" if number == 0 else "detections"
        return self.segments(number, name if role == "train" else f"{name}-{role}")

    def operating_point(self) -> OperatingPoint | None:
        """The thresholds of detections; None where the run has none.

        Raises:
            DataError: their file is malformed.
            RunError: they are of another model.
        """
        if not inside(self.folder, POINT_FILE).exists():
            return None
        return read_operating_point(self.folder, self.models)

    @property
    def models(self) -> dict[int, str | None]:
        """The key of each round's model."""
        return {row.round: row.model for row in self.rounds}

    @property
    def best(self) -> Round | None:
        """The selected round; while none is selected, the last one."""
        chosen = [r for r in self.rounds if r.selected or r.round == self.info.best_round]
        return chosen[-1] if chosen else (self.rounds[-1] if self.rounds else None)


def inside(folder: Path, *names: str) -> Path:
    """A path below a run's folder, whether it exists or not.

    Raises:
        DataError: a link leads out of the folder.
    """
    path = folder.joinpath(*names)
    if not path.resolve().is_relative_to(folder.resolve()):
        raise DataError(f"{path}: leads out of the run's folder, to {path.resolve()}; not read")
    return path


def read_info(folder: Path) -> RunInfo:
    """run.json.

    Raises:
        DataError: it cannot be read or is malformed; every problem is listed.
    """
    info: RunInfo = _read(inside(folder, "run.json"), TypeAdapter(RunInfo))
    return info


def _read(path: Path, kind: TypeAdapter[Any]) -> Any:
    if (size := regular(path).stat().st_size) > MOST_BYTES:
        raise DataError(f"{path}: not what `tad run` writes: it has {size} bytes")
    try:
        return kind.validate_python(read_json(path))
    except ValidationError as error:
        problems = [f"{'.'.join(map(str, e['loc'])) or 'file'}: {e['msg']}" for e in error.errors()]
        raise DataError(f"{path}: not what `tad run` writes: " + listing(problems)) from error


def _lines(path: Path) -> Iterator[dict[str, Any] | None]:
    if not path.exists():
        return
    with regular(path).open(encoding="utf-8", errors="replace") as file:
        while line := file.readline(LONGEST_LINE):
            try:
                event = parse_json(line, path.name)
            except DataError:
                event = None  # a killed run leaves half a line
            yield event if isinstance(event, dict) else None


def _events(path: Path) -> tuple[list[StageRun], list[str]]:
    stages: dict[str, StageRun] = {}
    newest: dict[str, StageRun] = {}
    warnings: dict[str, None] = {}
    unreadable = 0
    for event in _lines(path):
        if event is None:
            unreadable += 1
            continue
        kind, name = event.get("kind"), str(event.get("name", "?"))
        if kind == "warning":
            warnings[str(event.get("text", ""))] = None
        elif kind == "failures" and isinstance(event.get("failures"), dict):
            reasons: dict[str, list[str]] = {}
            for video, reason in event["failures"].items():
                reasons.setdefault(str(reason), []).append(video)
            for reason, videos in reasons.items():
                several = "s" if len(videos) > 1 else ""
                warnings[f"stage {name} failed for video{several} {few(videos)}: {reason}"] = None
        elif kind in ("derived", "stage", "stage-done", "stage-cached"):
            key = str(event.get("fingerprint", name))
            new = StageRun(
                name, str(event.get("role", "")), _integer(event.get("round")), fold=str(event.get("fold", ""))
            )
            stage = stages.setdefault(key, new)
            newest[name] = stage
            if kind == "stage-done":
                stage.state, stage.seconds = "done", _number(event.get("seconds"))
            elif kind == "stage-cached" and stage.state != "done":
                stage.state = "cached"
            elif kind == "derived":
                stage.derived = _derived(event.get("options"))
        elif kind == "epoch" and name in newest and isinstance(event.get("metrics"), dict):
            epoch = _integer(event.get("epoch"))
            metrics = {str(k): v for k, x in event["metrics"].items() if (v := _number(x)) is not None}
            if epoch is not None:
                newest[name].epochs[epoch] = metrics
    if unreadable > 1:  # one is normal after a kill
        warnings[f"{path.name}: {unreadable} lines cannot be read and were left out"] = None
    return list(stages.values()), list(warnings)


def _derived(options: Any) -> dict[str, tuple[str, str]]:
    if not isinstance(options, dict):
        return {}
    pairs = {str(name): pair for name, pair in options.items() if isinstance(pair, list) and len(pair) == 2}
    return {name: (f"{v:.4g}" if isinstance(v, float) else str(v), str(why)) for name, (v, why) in pairs.items()}


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else None


def _integer(value: Any) -> int | None:
    try:
        return int(value)
    except (TypeError, ValueError, OverflowError):
        return None
