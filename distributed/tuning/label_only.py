"""`tad tune label-only`: a labeler's options, searched over fixed proposals. No training, no features, no Ray.

A trial labels all training videos and is scored on some of them, the dev videos, by the mean tIoU of their labels with
ground truth. The best of many trials on few videos is better there than elsewhere, so it is taken only if its gain is
more than twice its standard error; otherwise the labeler stays as it is. Boundaries of the other training videos are
read once, at the end, to say what the choice is worth where it was not made.
"""

from __future__ import annotations

import json
import shlex
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from optuna.trial import FrozenTrial

from distributed.engine.engine import Engine
from distributed.engine.store import Store
from distributed.run.record import Record
from distributed.tuning.drivers import registered
from distributed.tuning.folder import make
from distributed.tuning.search import MOST_SEED, check_trials, sampler
from distributed.tuning.study import digest, in_one_sentence, join, open_storage
from distributed.tuning.summary import Summary, recipe_of, summarise
from distributed.tuning.trial import reason
from distributed.tuning.trials import Trials
from search_spaces.load import load
from tad.data.dataset import Dataset
from tad.data.segments import Segments
from tad.errors import DataError, RunError
from tad.evaluation.ground_truth import ground_truth
from tad.evaluation.quality_by_point import label_quality, point_quality
from tad.prepare.split import dev_videos
from tad.recipe.recipe import Recipe, load_recipe
from tad.report.budget import LabelBudget, label_budget
from tad.stages import Artifact

ERRORS = 2.0
"""A gain is taken for real from so many standard errors on."""


@dataclass(frozen=True)
class Judged:
    """One choice of a labeler's options, and what its labels are worth.

    Attributes:
        options: that differ from the labeler's defaults, by name.
        dev: `Quality.to_json` on the dev videos.
        rest: the same on the other training videos; None if nothing is annotated there.
    """

    options: Mapping[str, Any]
    dev: Mapping[str, Any]
    rest: Mapping[str, Any] | None


@dataclass(frozen=True)
class LabelSearch:
    """What a search found.

    Attributes:
        default: the labeler as it is.
        best: the best choice on dev videos, the earliest of equals.
        error: standard error of its gain on them, over videos.
    """

    default: Judged
    best: Judged
    error: float
    summary: Summary
    budget: LabelBudget

    @property
    def chosen(self) -> Judged:
        """What to use: the best if it is clearly better, else the labeler as it is."""
        gain = self.best.dev["mean_tiou"] - self.default.dev["mean_tiou"]
        return self.best if gain > ERRORS * self.error else self.default


def search_labels(
    method: str, proposals: Segments, data: Dataset, trials: int, seed: int, dev: int, out: Path, store: str
) -> LabelSearch:
    """Searches the options of a labeler, or goes on with a search that was stopped.

    Args:
        method: labeler of the space `labels`.
        proposals: on training videos of `data`.
        data: its training videos have points; those that become dev videos, boundaries.
        trials: of the study in all; trial 0 is the labeler as it is.
        seed: of the sampler and of the choice of dev videos.
        dev: number of dev videos, stratified by the classes of their points.
        out: folder of the study.
        store: of the labels that trials make.

    Raises:
        RunError: no trials, a number of dev videos that leaves none on one side, or another study in `out`.
        DataError: the dev videos have no annotated segment.
    """
    with in_one_sentence(out / "study.db"):
        return _search(method, proposals, data, trials, seed, dev, out, store)


def _search(
    method: str, proposals: Segments, data: Dataset, trials: int, seed: int, dev: int, out: Path, store: str
) -> LabelSearch:
    check_trials(trials)
    recipe = load_recipe("pser", [f"labeler.method={method}"])
    space = load("labels").for_recipe(recipe)
    parts = divided(data, dev, seed)
    truth = ground_truth(parts, "dev")
    if not len(truth):
        raise DataError(
            f"{data.root / 'annotations.json'}: none of the {dev} videos drawn from training has a segment; their "
            "boundaries are what the search chooses by"
        )
    make(out)
    engine = Engine(data, Store(store), Record(out, quiet=True))
    given = engine.adopt(proposals, "proposals")
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = join(
        open_storage(out / "study.db"),
        "label-only",
        {
            "labeler": method,
            "proposals": given.fingerprint,
            "data": digest([data.fingerprint("train"), truth.digest()]),
            "space": space.fingerprint,
            "dev videos": digest(parts.videos("dev")),
            "seed": str(seed),
        },
        ["maximize"],
    )
    with registered(study) as driver:
        asked = Trials(study, space, trials, driver)
        asked.sampler = lambda before: sampler("tpe", (seed + before) % MOST_SEED)
        asked.prepare(space.defaults(recipe), [])
        try:
            while (trial := asked.ask()) is not None:
                asked.end(trial.number, _report(recipe_of(study.trials[trial.number], recipe), engine, given, parts))
        finally:
            asked.give_back("interrupted")
    if asked.broken is not None:
        raise RunError(f"labeler {method} fails as it is: {asked.broken}")
    summary = summarise(study)
    assert summary.recipe is not None and summary.best is not None  # trial 0 succeeded

    def judged(trial: FrozenTrial) -> tuple[Judged, Segments]:
        chosen = recipe_of(trial, recipe)
        found = labels(chosen, engine, given)
        options = _changes(recipe.labeler.model_dump(), chosen.labeler.model_dump())
        return Judged(options, _quality(found, parts, "dev"), _quality(found, parts, "train")), found

    (default, before), (best, after) = judged(summary.recipe), judged(summary.best)
    error = gain_error(before, after, parts, truth)
    return LabelSearch(default, best, error, summary, label_budget(parts, "dev-quality"))


def gain_error(before: Segments, after: Segments, parts: Dataset, truth: Segments) -> float:
    """Standard error of the difference of mean tIoU over points, for a random choice of videos.

    Points of a video rise and fall together, so the videos are what was drawn (ratio estimator over clusters).

    Args:
        before, after: labels.
        parts: its dev videos count.
        truth: of the dev videos.
    """
    annotated, both, none = truth.by_video(), (before.by_video(), after.by_video()), Segments.empty()
    gain, points = [], []
    for video in parts.videos("dev"):
        alone, own = _with_roles(parts, {video: "dev"}), annotated.get(video, none)
        try:
            tiou = [point_quality(x.get(video, none), own, alone, "dev").tiou for x in both]
        except DataError:  # no point of it lies in a segment
            continue
        gain.append(float((tiou[1] - tiou[0]).sum()))
        points.append(len(tiou[0]))
    count, total = len(points), sum(points)
    if count < 2:
        return float("inf")
    residual = np.array(gain) - sum(gain) / total * np.array(points)
    return float(np.sqrt((residual**2).sum() * count / (count - 1)) / total)


def divided(data: Dataset, dev: int, seed: int) -> Dataset:
    """The dataset with `dev` of its training videos as dev videos and the other training videos; no others.

    Raises:
        RunError: the number leaves no video on one side.
    """
    train = [v for v in data.videos("train") if len(data.points(v).time)]
    if not 0 < dev < len(train):
        raise RunError(
            f"--dev-videos {dev}: {data.root} has {len(train)} training videos with points; needs 1 to {len(train) - 1}"
        )
    alone = _with_roles(data, dict.fromkeys(train, "train"))
    chosen = set(dev_videos(alone, dev / len(train), seed))
    return _with_roles(data, {v: "dev" if v in chosen else "train" for v in train})


def _with_roles(data: Dataset, roles: Mapping[str, str]) -> Dataset:
    subsets = {role: role for role in ("train", "dev")}
    return replace(
        data,
        manifest=data.manifest.model_copy(update={"subsets": subsets}),
        videos_by_id={v: data.videos_by_id[v]._replace(subset=role) for v, role in roles.items()},
    )


def labels(recipe: Recipe, engine: Engine, proposals: Artifact) -> Segments:
    """The labels of all training videos: labelers that learn from points learn from those of all, as in a run."""
    return recipe.labeler.label(engine, proposals, None).segments()


def _report(recipe: Recipe, engine: Engine, proposals: Artifact, parts: Dataset) -> dict[str, Any]:
    """What a trial ends with (distributed.tuning.trials)."""
    start, cpu = time.perf_counter(), time.process_time()
    report: dict[str, Any] = {"value": None, "round": 0}
    try:
        quality = label_quality(labels(recipe, engine, proposals), parts, "dev").to_json()
        report |= {"value": quality["mean_tiou"], "finished": True}
    except Exception as error:  # the study learns of it; the search goes on
        report |= {"failed": reason(error)}
    return report | {"seconds": time.perf_counter() - start, "cpu_seconds": time.process_time() - cpu}


def _quality(found: Segments, parts: Dataset, role: Any) -> Any:
    if role == "train" and not len(ground_truth(parts, role)):
        return None
    return label_quality(found, parts, role).to_json()


def _changes(base: Mapping[str, Any], options: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Options that differ, by dotted name."""
    found: dict[str, Any] = {}
    for name, value in options.items():
        if isinstance(value, dict):
            found |= _changes(base[name], value, f"{prefix}{name}.")
        elif value != base[name]:
            found[prefix + name] = value
    return found


def text_of(found: LabelSearch, method: str, data: Path, proposals: Path) -> str:
    """What the end of a search prints."""
    default, best, summary = found.default, found.best, found.summary
    assert summary.best is not None
    rows: list[tuple[str, ...]] = [
        ("mean tIoU of labels", f"dev ({default.dev['points']} points)", "other training videos")
    ]

    def row(name: str, a: Mapping[str, Any], b: Mapping[str, Any] | None) -> None:
        rows.append((name, f"{a['mean_tiou']:.4f}", f"{b['mean_tiou']:.4f}" if b else "not annotated"))

    row("labeler as it is", default.dev, default.rest)
    row(f"best (trial {summary.best.number})", best.dev, best.rest)
    gains = [
        f"{b['mean_tiou'] - a['mean_tiou']:+.4f}" if a and b else ""
        for a, b in ((default.dev, best.dev), (default.rest, best.rest))
    ]
    rows.append(("gain", f"{gains[0]} ± {found.error:.4f}", gains[1]))
    lines = [f"{a:<22}{b:>20}{c:>24}" for a, b, c in rows]
    verdict = "the best is taken" if found.chosen is best else "the labeler stays as it is"
    lines.append(f"± is the standard error over videos; a gain counts from {ERRORS:g} of them on: {verdict}")
    if summary.importances:
        top = ", ".join(f"{key} {100 * share:.0f} %" for key, share in summary.importances[:3])
        lines.append(f"most important: {top}")
    states = ", ".join(f"{n} {name.lower()}" for name, n in summary.states.items())
    lines.append(f"trials: {states}; {summary.totals['cpu_seconds']:.0f} s of CPU")
    lines.append(f"labels used: {found.budget}")
    command = ["tad", "label", method, "--data", str(data), "--proposals", str(proposals), "--out", "labels.json"]
    for key, value in found.chosen.options.items():
        command += ["--set", f"{key}={value if isinstance(value, str) else json.dumps(value)}"]
    lines += ["pseudo-labels:", f"    {shlex.join(command)}"]
    return "\n".join(lines)
