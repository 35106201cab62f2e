"""What a search found: the gain over the recipe as it is, what mattered, what it cost, and the best recipe.

The best of many trials on few videos is better there than elsewhere. With the objective dev-quality, which is a mean
over points, the gain therefore has a standard error, and counts from so many of them on as the number of trials asks
for (`Summary.errors`); otherwise the recipe stays as it is. The other objectives are no means over videos and have no
such error.
"""

from __future__ import annotations

import json
import shlex
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import NormalDist
from typing import Any

import numpy as np
import optuna
from optuna.trial import FrozenTrial, TrialState

from distributed.tuning.limits import NO_LIMITS, Limits
from distributed.tuning.trial import Work, folder_of
from distributed.tuning.trials import AS_IT_IS, VALUES, asked, counts, recipe_trial
from tad.data.dataset import Dataset
from tad.data.segments import Segments
from tad.evaluation.quality_by_point import Quality, label_quality
from tad.files import read_json, write_text
from tad.methods.file.proposer import FileProposer
from tad.recipe.recipe import Recipe, changed, dump, options

CHANCE = 0.025
"""That the best of all trials seems to gain by luck alone, when none of them does."""


@dataclass(frozen=True)
class Summary:
    """The numbers of a study.

    Attributes:
        recipe: trial of the recipe as it is; None while it has not finished.
        best: the trial with the best score (of two objectives: the first), the earliest of equals; None without any.
        front: with two objectives, the trials that no other beats in both.
        importances: share of the score's variation that each parameter explains, largest first (PED-ANOVA).
        states: how many trials ended how; given-back ones do not count.
        totals: sums over trials: seconds, cpu_seconds, stages made and cached, seconds waited for Ray.
        error: standard error of the best trial's gain over the recipe as it is, over dev videos; None: not known.
        limits: what the best recipe may cost.
        within: how many of the finished trials keep them, the recipe as it is among them or not.
        resumed: how many of the trials went on with a stopped one.
    """

    recipe: FrozenTrial | None
    best: FrozenTrial | None
    front: list[FrozenTrial]
    importances: list[tuple[str, float]]
    states: dict[str, int]
    totals: dict[str, float]
    error: float | None = None
    limits: Limits = NO_LIMITS
    within: int = 0
    resumed: int = 0

    @property
    def gain(self) -> float | None:
        """Of the best trial over the recipe as it is; None while one of them is missing."""
        if self.best is None or self.recipe is None:
            return None
        return float(self.best.values[0] - self.recipe.values[0])

    @property
    def chosen(self) -> FrozenTrial | None:
        """What to use: the best trial; where its gain has an error and does not count, the recipe as it is, if that
        keeps the limits."""
        stays = self.clear is False and self.recipe is not None and self.limits.kept(self.recipe)
        return self.recipe if stays else self.best

    @property
    def errors(self) -> float:
        """From how many standard errors on a gain counts: Bonferroni's quantile, for as many looks as there were trials
        beside the recipe as it is."""
        return NormalDist().inv_cdf(1 - CHANCE / max(1, self.states.get("COMPLETE", 0) - 1))

    @property
    def clear(self) -> bool | None:
        """Whether the gain counts; None where it has no standard error."""
        return None if self.gain is None or self.error is None else self.gain > self.errors * self.error


def summarise(study: optuna.Study, work: Work, data: Dataset, limits: Limits = NO_LIMITS) -> Summary:
    """Reads a study; `data` is its own."""
    trials = [t for t in study.get_trials(deepcopy=False) if counts(t)]
    done = [t for t in trials if t.state == TrialState.COMPLETE]
    names = ("seconds", "cpu_seconds", "made", "cached", "waited")
    kept = [t for t in done if limits.kept(t)]
    recipe, best = recipe_trial(study), max(kept, key=lambda t: (t.values[0], -t.number), default=None)
    before, after = (dev_quality(work, trial, data) for trial in (recipe, best))
    return Summary(
        recipe=recipe,
        best=best,
        front=unbeaten(kept) if len(study.directions) > 1 else [],
        importances=importances(study, done),
        states={s.name: n for s in TrialState if (n := sum(t.state == s for t in trials))},
        totals={name: sum(float(t.user_attrs.get(name, 0)) for t in trials) for name in names},
        error=gain_error(before, after) if before is not None and after is not None else None,
        limits=limits,
        within=len(kept),
        resumed=sum(not asked(t) for t in trials),
    )


def unbeaten(trials: list[FrozenTrial]) -> list[FrozenTrial]:
    """Those of the trials with a score and a cost than which no other is as good in both, and better in one."""

    def beaten(value: float, cost: float) -> bool:
        return any(v >= value and c <= cost and (v, c) != (value, cost) for v, c in (t.values for t in trials))

    return [t for t in trials if not beaten(*t.values)]


def dev_quality(work: Work, trial: FrozenTrial | None, data: Dataset) -> Quality | None:
    """Of the pseudo-labels of dev videos that gave a trial its score; None where the trial's folder has none."""
    if trial is None or work.recipe.select != "dev-quality":
        return None
    rows = folder_of(work, trial.number) / "rounds.json"
    if not rows.is_file():
        return None
    best = next(row["round"] for row in read_json(rows) if row["selected"])
    labels = Segments.from_parquet(rows.parent / f"round-{best}" / "labels-dev.parquet")
    return label_quality(labels, data, "dev")


def gain_error(before: Quality, after: Quality) -> float:
    """Standard error of the difference of mean tIoU over points, for a random choice of videos.

    Points of a video rise and fall together, so the videos are what was drawn (ratio estimator over clusters). Infinite
    for less than two videos.
    """
    _, video = np.unique(before.video, return_inverse=True)
    gain, points = np.bincount(video, after.tiou - before.tiou), np.bincount(video)
    if (count := len(points)) < 2:
        return float("inf")
    residual = gain - gain.sum() / points.sum() * points
    return float(np.sqrt((residual**2).sum() * count / (count - 1)) / points.sum())


def importances(study: optuna.Study, done: list[FrozenTrial]) -> list[tuple[str, float]]:
    """By parameter; of those that only matter at some values of another, those that all trials have."""
    if len(done) < 4 or len({t.values[0] for t in done}) == 1:
        return []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = optuna.importance.get_param_importances(study, target=lambda t: t.values[0])
    return sorted(found.items(), key=lambda item: -item[1])


def recipe_of(trial: FrozenTrial, recipe: Recipe) -> Recipe:
    """The recipe that a trial ran."""
    return recipe if trial.user_attrs.get(AS_IT_IS) else changed(recipe, trial.user_attrs[VALUES])


def write_best(summary: Summary, recipe: Recipe, study_name: str, path: Path) -> None:
    """STUDY/best.yaml; `tad run` on it has the best trial's score to the last digit."""
    assert summary.best is not None
    text = f"trial {summary.best.number} of study {study_name}: {recipe.select} {summary.best.values[0]:.4f}"
    best = recipe_of(summary.best, recipe).model_copy(update={"description": text})
    write_text(path, dump(best))


def label_command(recipe: Recipe, data: Path) -> str | None:
    """The command that labels by the recipe's labeler; None where the proposals are not those of a file."""
    if not isinstance(recipe.proposer, FileProposer):
        return None
    method = recipe.labeler.method
    command = ["tad", "label", method, "--data", str(data), "--proposals", recipe.proposer.path, "--out", "labels.json"]
    plain = options(changed(recipe, {"labeler": {"method": method}}))
    for key, value in options(recipe).items():
        if key.startswith("labeler.") and value != plain[key]:
            text = value if isinstance(value, str) else json.dumps(value)
            command += ["--set", f"{key.removeprefix('labeler.')}={text}"]
    return shlex.join(command)


def text_of(
    summary: Summary, objective: str, total: int, seconds: float, budget: Any, commands: Mapping[str, str]
) -> str:
    """What the end of a search prints.

    Args:
        total: trials that were asked for.
        seconds: wall-clock of this command.
        budget: the labels that were used.
        commands: title to command.
    """
    states = ", ".join(f"{n} {name.lower()}" for name, n in summary.states.items())
    more = f", and {summary.resumed} that went on with stopped ones" if summary.resumed else ""
    lines = [f"{sum(summary.states.values()) - summary.resumed} of {total} trials{more}: {states or 'none'}"]
    if summary.limits:
        finished = summary.states.get("COMPLETE", 0)
        lines.append(f"at most {summary.limits}:  {summary.within} of {finished} finished trials")
    if summary.recipe is not None:
        lines.append(f"recipe as it is:  {objective} {summary.recipe.values[0]:.4f} (trial {summary.recipe.number})")
    if summary.best is not None:
        lines.append(f"best:             {objective} {summary.best.values[0]:.4f} (trial {summary.best.number})")
    if summary.gain is not None:
        error = f" ± {summary.error:.4f}, the standard error over dev videos" if summary.error is not None else ""
        lines.append(f"gain:             {summary.gain:+.4f}{error}")
    if summary.clear is not None:
        verdict = "the best trial is taken" if summary.clear else "the recipe stays as it is"
        lines.append(f"  of so many trials, a gain counts from {summary.errors:.1f} standard errors on: {verdict}")
    if summary.gain:
        lines.append("  the best of many trials on few videos is partly luck; confirm it with more seeds")
    if summary.front:
        lines.append("no trial is better in both score and cost than:")
        lines += [f"  trial {t.number}: {objective} {t.values[0]:.4f}, {t.values[1]:.1f} s" for t in summary.front]
    if summary.importances:
        top = ", ".join(f"{key} {100 * share:.0f} %" for key, share in summary.importances[:3])
        lines.append(f"most important:   {top}")
    t = summary.totals
    lines.append(
        f"cost:             {t['cpu_seconds']:.0f} s of CPU, {t['seconds']:.0f} s in trials, {seconds:.0f} s of "
        f"wall-clock in this command; stages: {t['made']:.0f} computed, {t['cached']:.0f} shared"
    )
    if t["waited"]:
        share = t["waited"] / max(1, sum(summary.states.values()))
        lines.append(f"                  Ray Tune's own share: {share:.2f} s a trial")
    lines.append(f"labels used:      {budget}")
    return "\n".join(lines + [f"{title}\n    {command}" for title, command in commands.items()])
