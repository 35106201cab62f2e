"""What a search found: the gain over the recipe as it is, what mattered, what it cost, and the best recipe."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from distributed.tuning.trials import AS_IT_IS, VALUES, counts, recipe_trial
from tad.files import write_text
from tad.recipe.recipe import Recipe, changed, dump


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
    """

    recipe: FrozenTrial | None
    best: FrozenTrial | None
    front: list[FrozenTrial]
    importances: list[tuple[str, float]]
    states: dict[str, int]
    totals: dict[str, float]


def summarise(study: optuna.Study) -> Summary:
    """Reads a study."""
    trials = [t for t in study.get_trials(deepcopy=False) if counts(t)]
    done = [t for t in trials if t.state == TrialState.COMPLETE]
    names = ("seconds", "cpu_seconds", "made", "cached", "waited")
    return Summary(
        recipe=recipe_trial(study),
        best=max(done, key=lambda t: (t.values[0], -t.number), default=None),
        front=study.best_trials if len(study.directions) > 1 and done else [],
        importances=importances(study, done),
        states={s.name: n for s in TrialState if (n := sum(t.state == s for t in trials))},
        totals={name: sum(float(t.user_attrs.get(name, 0)) for t in trials) for name in names},
    )


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
    lines = [f"{sum(summary.states.values())} of {total} trials: {states or 'none'}"]
    if summary.recipe is not None:
        lines.append(f"recipe as it is:  {objective} {summary.recipe.values[0]:.4f} (trial {summary.recipe.number})")
    if summary.best is not None:
        lines.append(f"best:             {objective} {summary.best.values[0]:.4f} (trial {summary.best.number})")
    if summary.recipe is not None and summary.best is not None:
        lines.append(f"gain:             {summary.best.values[0] - summary.recipe.values[0]:+.4f}")
        if summary.best.number != summary.recipe.number:
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
