"""Search space of PseR's labels: the bag's grid, the negatives and the merge.

Ranges follow the method's structure: scales are symmetric in the logarithm around 1 (the seed itself), shifts are
symmetric around 0 and given as a share of the scaled length.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from optuna.trial import Trial


def labels(trial: Trial) -> list[str]:
    """Overrides for `load_recipe` that change the pseudo-labels and nothing before them."""
    widest = trial.suggest_float("bag/widest", 1.2, 3.0, log=True)
    steps = trial.suggest_int("bag/scales", 2, 5)
    reach = trial.suggest_float("bag/reach", 0.05, 0.4)
    shifts = trial.suggest_int("bag/shifts", 1, 3)
    scales = [round(widest ** (k / steps), 4) for k in range(-steps, steps + 1)]
    moves = [0.0] + [round(sign * reach * k / shifts, 4) for k in range(1, shifts + 1) for sign in (-1, 1)]
    return [
        f"labeler.bag.scales={scales}",
        f"labeler.bag.shifts={moves}",
        f"labeler.negatives.tiou_threshold={trial.suggest_float('negatives/tiou', 0.1, 0.5)}",
        f"labeler.negatives.weight={trial.suggest_float('negatives/weight', 0.05, 2.0, log=True)}",
        f"labeler.heads.rank_weight={trial.suggest_float('heads/rank_weight', 0.1, 10.0, log=True)}",
        f"labeler.merge.class_power={trial.suggest_float('merge/class_power', 0.0, 3.0)}",
        f"labeler.merge.instance_power={trial.suggest_float('merge/instance_power', 0.0, 3.0)}",
        f"labeler.merge.rank_power={trial.suggest_float('merge/rank_power', 0.0, 6.0)}",
    ]
