"""Self-training: propose once, then rounds of label, train, detect; the best round by an honest score is kept."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, cast

from distributed.engine.engine import Engine
from distributed.run.cross_fitting import check_folds, keep, operating_point
from tad.data.dataset import Role
from tad.data.segments import Segments
from tad.errors import DataError
from tad.evaluation.ground_truth import ambiguous, ground_truth
from tad.evaluation.quality_by_label import instance_quality
from tad.evaluation.quality_by_point import label_quality
from tad.evaluation.subset import Subset
from tad.recipe.recipe import Recipe
from tad.recipe.rounds import Rounds
from tad.selection.best_round import best_round, check_selection, selecting
from tad.selection.label_free_scores import classes_role, classes_score, label_change, points_score
from tad.selection.reference import Reference, reference
from tad.stages import Artifact, Detecting, FitStage

Row = dict[str, Any]

LOOKS = 5
"""Parts of a detector's training; a search looks at it after each."""


@dataclass
class SelfTraining:
    """One self-training over an engine: `run` does all of it, `score` what a search needs to know.

    Attributes:
        document: run.json; gains the artifacts of snippet scores ("scores") and the best round.
        watch: called with each finished row, round 0 first; what it raises ends the self-training.
        look: called on the way of each detector's training, after a fifth of its epochs, two fifths and so on, but not
            at its end: the round, the fifth, and the selecting score of the detector so far.
        looked: seconds that these scores took.
        scores: the proposer's snippet scores.
        reference: what the score of points compares with: made of the proposer's proposals, the same for all rounds.
        rows: the rounds table, one row for the proposer (round 0) and for each round.
        rounds: the artifacts of all rounds.
    """

    recipe: Recipe
    engine: Engine
    document: Row
    watch: Callable[[Row], None] | None = None
    look: Callable[[int, int, float | None], None] | None = None
    looked: float = 0.0
    rows: list[Row] = field(default_factory=list)
    scores: dict[Role, Artifact] = field(default_factory=dict)
    reference: Reference | None = None

    def __post_init__(self) -> None:
        self.rounds = Rounds(self.recipe, self.engine)

    def run(self) -> None:
        """Trains, selects the best round, and reads the test videos once, at the very end.

        Raises:
            RunError: a stage failed, or the selecting score or the operating point cannot be had from this dataset.
        """
        check_selection(self.recipe, self.engine.data)
        for text in self.recipe.warnings(self.engine.data):
            self.engine.record.warn(text)
        if self.recipe.select == "test" and self.recipe.rounds:
            self.engine.record.warn(
                "select: test picks the round on the test videos. The result leaks; do not report it"
            )
        if (cost := check_folds(self.recipe, self.engine.data)) is not None:
            self.engine.record.say(cost)
        best = self._rounds(whole=True)
        if (point := operating_point(self.rounds, best)) is not None:
            keep(point, self.engine)
        self._test()
        self._save()

    def score(self) -> float:
        """The selecting score of the best round, the same as in `run`; test videos are not read.

        What the score does not need is left out: figures, the score of points, with dev-quality the last round's
        detector.

        Raises:
            RunError: as in `run`, or the recipe selects by the test videos.
        """
        check_selection(self.recipe, self.engine.data, test=False)
        best = self._rounds(whole=False)
        self._save()
        return selecting(self.rows[best], self.recipe.select)

    # -- the rounds --------------------------------------------------------------------------------------------

    def _rounds(self, whole: bool) -> int:
        """All rounds; returns the best one's number."""
        self._propose(whole)
        best = 0
        self._watched()
        for number in range(1, self.recipe.rounds + 1):
            with self.engine.record.round(number):
                trained = self._round(number, whole)
            best = best_round(self.rows, self.recipe.select)
            self._watched()
            if not trained or self._converged(best):
                break
        for row in self.rows:
            row["selected"] = row["round"] == best
        self.document["best_round"] = best
        return best

    def _watched(self) -> None:
        if self.watch is not None:
            self.watch(self.rows[-1])

    def _propose(self, whole: bool) -> None:
        engine = self.engine
        start = time.perf_counter()
        with engine.record.round(0):
            model, proposals = self.rounds.model(0), self.rounds.detections(0, "train")
            pointed = any(len(engine.data.points(v).time) for v in engine.data.videos("train"))
            if (whole and pointed) or self.recipe.select == "points":
                self.reference = reference(self.rounds.round(0), self.recipe.reads_features(engine.data))
            row = self._row(0, start) | {"model": model.fingerprint}
            row |= self._measure(proposals.segments(), 0)
            for role in ("train", "dev"):
                self._note_scores(role)
            self._keep(0, {"proposals": proposals})
            self._finish(row)

    def _round(self, number: int, whole: bool) -> bool:
        """One round; returns whether a detector was trained."""
        engine, recipe, data, rounds = self.engine, self.recipe, self.engine.data, self.rounds
        start = time.perf_counter()
        seeds, labels = rounds.seeds(number), rounds.labels(number)
        if labels.note is not None:
            engine.record.say(labels.note())
        now = labels.segments.segments()
        measured = len(ground_truth(data, "train")) and any(len(data.points(v).time) for v in data.videos("train"))
        row = self._row(number, start) | {
            "labels": len(now),
            "quality": label_quality(now, data, "train").to_json() if measured else None,
            "seed_quality": label_quality(seeds.segments(), data, "train").to_json() if measured else None,
            "instance_quality": instance_quality(now, data),
            "change": self._change(number, now),
        }
        if whole and labels.statistics is not None:
            row["selection"] = labels.statistics()
        by_quality = recipe.select == "dev-quality"
        dev_quality = self._dev_quality(number) if by_quality else None
        kept = {"seeds": seeds, "labels": labels.segments}
        kept |= {"ignored": labels.ignored} if labels.ignored is not None else {}
        trained = whole or not by_quality or number < recipe.rounds
        if trained:
            row["model"] = self._train(number).fingerprint
            found = kept["detections"] = rounds.detections(number, "train")
            row |= self._measure(found.segments(), number)
        row["scores"]["dev_quality"] = dev_quality
        self._keep(number, kept)
        now.to_json_file(self._folder(number) / "labels.json")
        engine.record.artifact(self._folder(number) / "labels.json")
        self._finish(row)
        if whole:
            from tad.report.figures import figures_of_round  # matplotlib, which a trial of a search does without

            activations = self.scores["train"].path if "train" in self.scores else None
            for figure in figures_of_round(engine.record.folder, data, number, activations):
                engine.record.artifact(figure, "figures")
        return trained

    def _train(self, number: int) -> Artifact:
        """The round's detector; it is looked at on its way."""
        engine = cast(Engine, self.rounds.detectors)
        engine.watch = partial(self._look, number) if self.look is not None else None
        try:
            return self.rounds.model(number)
        finally:
            engine.watch = None

    def _look(
        self,
        number: int,
        stage: FitStage,
        epoch: int,
        epochs: int,
        so_far: Callable[[], AbstractContextManager[Artifact]],
    ) -> None:
        fifth = LOOKS * epoch // epochs
        new = fifth > LOOKS * (epoch - 1) // epochs and epoch < epochs
        if self.look is None or not new or not isinstance(stage, Detecting) or not stage.detects:
            return
        start = time.perf_counter()
        with so_far() as model:
            value = self._score(number, model)
        self.looked += time.perf_counter() - start
        self.look(number, fifth, value)

    def _score(self, number: int, model: Artifact) -> float | None:
        """The selecting score of a detector that is not the round's yet."""
        data, select = self.engine.data, self.recipe.select
        role = {"dev-map": "dev", "points": "train", "classes": classes_role(data)}.get(select)
        if role is None:  # it judges no detector
            return None
        now = self.rounds.round(number, role).of_detector  # type: ignore[arg-type]
        found = self.recipe.detector.detect(now, model).segments()
        if select == "dev-map":
            measured = self._map(found, "dev")
            return float(measured["average"]) if measured else None
        if select == "points":
            return points_score(found, self.reference) if self.reference is not None else None
        return classes_score(found, data, role)  # type: ignore[arg-type]

    def _dev_quality(self, number: int) -> float:
        """Mean tIoU of the pseudo-labels of dev videos, made as those of training videos are."""
        labels = self.rounds.labels(number, "dev").segments
        self._keep(number, {"labels-dev": labels})
        value = label_quality(labels.segments(), self.engine.data, "dev").to_json()["mean_tiou"]
        return float(value or 0.0)

    def _change(self, number: int, now: Segments) -> float | None:
        if number == 1:
            return None
        return label_change(Segments.from_parquet(self._folder(number - 1) / "labels.parquet"), now)

    def _converged(self, best: int) -> bool:
        last, stop = self.rows[-1], self.recipe.stop
        if last["change"] is not None and last["change"] >= stop.change:
            self.engine.record.say(f"stopping: labels agree with the last round's (mean tIoU {last['change']:.3f})")
            return True
        select = self.recipe.select
        if selecting(last, select) < selecting(self.rows[best], select) - stop.score_drop:
            self.engine.record.say(f"stopping: the {select} score fell; round {best} stays the best")
            return True
        return False

    # -- numbers -----------------------------------------------------------------------------------------------

    def _row(self, number: int, start: float) -> Row:
        row: Row = {"round": number, "seconds": start, "labels": None, "quality": None, "seed_quality": None}
        row |= {"instance_quality": None, "model": None, "change": None}
        row |= {"train_map": None, "test_map": None, "selected": False}
        return row | {"scores": {"points": None, "classes": None, "dev_map": None, "dev_quality": None}}

    def _measure(self, on_train: Segments, number: int) -> Row:
        """mAP on training videos (a diagnostic), the honest scores, and mAP on dev videos if there are any."""
        data = self.engine.data
        on_dev = self.rounds.detections(number, "dev").segments() if data.videos("dev") else None
        dev = self._map(on_dev, "dev") if on_dev is not None else None
        judges = classes_role(data)
        judged = on_dev if judges == "dev" and on_dev is not None else on_train
        row = {
            "train_map": self._map(on_train, "train"),
            "scores": {
                "points": points_score(on_train, self.reference) if self.reference is not None else None,
                "classes": classes_score(judged, data, judges) if judges is not None else None,
                "dev_map": dev["average"] if dev else None,
                "dev_quality": None,
            },
        }
        if self.recipe.select == "test":
            row["test_map"] = self._map(self.rounds.detections(number, "test").segments(), "test")
        return row

    def _map(self, detections: Segments, role: Role) -> dict[str, Any] | None:
        """mAP where there is ground truth; ambiguous intervals, where the dataset has any, count neither way."""
        data = self.engine.data
        if not len(ground_truth(data, role)):
            return None
        try:
            protocol = "hrpro" if ambiguous(data) else "anet"
            return Subset.of_dataset(data, role).evaluate(detections, protocol=protocol).to_json()
        except DataError as error:
            self.engine.record.warn(f"no mAP on {role}: {error}")
            return None

    def _test(self) -> None:
        """The test videos, read once, after everything is chosen: the proposer and each round's detector."""
        engine, data = self.engine, self.engine.data
        if not data.videos("test"):
            engine.record.say("no test videos: nothing to evaluate at the end")
            return
        self._note_scores("test")
        for row in self.rows:
            number = row["round"]
            found = self.rounds.detections(number, "test")
            self._keep(number, {"proposals-test" if number == 0 else "detections-test": found})
            row["test_map"] = self._map(found.segments(), "test")
            if row["test_map"]:
                engine.record.metrics(_flat({"test": row["test_map"]}), number)

    # -- the run's folder --------------------------------------------------------------------------------------

    def _folder(self, number: int) -> Path:
        return self.engine.record.folder / f"round-{number}"

    def _keep(self, number: int, artifacts: dict[str, Artifact]) -> None:
        """Copies a round's segments into the run's folder, for the report and for people."""
        self.engine.record.check()
        self._folder(number).mkdir(exist_ok=True)
        for name, artifact in artifacts.items():
            target = self._folder(number) / f"{name}.parquet"
            shutil.copyfile(artifact.path / "segments.parquet", target)
            self.engine.record.artifact(target)

    def _finish(self, row: Row) -> None:
        row["seconds"] = round(time.perf_counter() - row["seconds"], 1)
        self.rows.append(row)
        self._save()
        self.engine.record.metrics(
            _flat({k: v for k, v in row.items() if k not in ("round", "selected")}), row["round"]
        )
        self.engine.record.say(summary(row))

    def _note_scores(self, role: Role) -> None:
        """Notes the proposer's snippet scores; the report finds its activation curves there."""
        if self.engine.data.videos(role) and (found := self.rounds.scores(role)) is not None:
            self.scores[role] = found
            self.document["scores"][role] = found.fingerprint
            self.engine.record.save("run.json", self.document)

    def _save(self) -> None:
        self.engine.record.save("rounds.json", self.rows)


def summary(row: Row) -> str:
    """One line about a round."""
    parts = [f"round {row['round']}" + (" (proposer)" if row["round"] == 0 else "")]
    if row["quality"]:
        seeds = f" (seeds {row['seed_quality']['mean_tiou']:.3f})" if row["seed_quality"] else ""
        parts.append(f"pseudo-labels: mean tIoU {row['quality']['mean_tiou']:.3f}{seeds}")
    elif row["instance_quality"] and row["instance_quality"]["labels"]:
        found = row["instance_quality"]
        parts.append(
            f"pseudo-labels: {100 * found['hits']:.1f} % right, {100 * found['recall']:.1f} % of actions found"
        )
    if row["change"] is not None:
        parts.append(f"agreement with last round {row['change']:.3f}")
    for name in ("train", "test"):
        if row[f"{name}_map"]:
            parts.append(f"mAP on {name} {100 * row[f'{name}_map']['average']:.1f}")
    if row["scores"]["dev_map"] is not None:
        parts.append(f"mAP on dev {100 * row['scores']['dev_map']:.1f}")
    if row["scores"]["dev_quality"] is not None:
        parts.append(f"pseudo-labels of dev videos: mean tIoU {row['scores']['dev_quality']:.3f}")
    for name in ("points", "classes"):
        if row["scores"][name] is not None:
            parts.append(f"{name} score {row['scores'][name]:.3f}")
    return "; ".join(parts)


def _flat(document: Any, prefix: str = "") -> dict[str, float]:
    """Nested numbers as one level: {"train_map/mAP/0.5": ...}."""
    if isinstance(document, dict):
        return {k: v for name, value in document.items() for k, v in _flat(value, f"{prefix}{name}/").items()}
    if isinstance(document, bool) or not isinstance(document, (int, float)):
        return {}
    return {prefix.rstrip("/"): float(document)}
