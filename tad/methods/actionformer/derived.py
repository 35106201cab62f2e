"""What the training takes from its labels and recordings where an option is null: one rule for each option.

A rule gives the value and the reason that is printed. Rules stand in the order in which they are applied: later ones
read what earlier ones gave. How they were chosen: docs/results/real.md.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

from tad.methods.common.optimisers import derived_ema, derived_width
from tad.methods.common.windows import LONGEST, SHORT, levels_for
from tad.stages import StageConfig

EPOCHS = 35
"""ActionFormer's."""
STEPS = 300
"""Fewest of a training: the passes over a few videos are too few of them."""

T = TypeVar("T", bound=StageConfig)
Rule = Callable[[Any, "Facts"], tuple[Any, str]]


@dataclass(frozen=True)
class Facts:
    """What the rules read.

    Attributes:
        dim: width D of the features.
        labels: [N] snippets that each label covers.
        recordings: [V] snippets of each training video.
        items: of an epoch.
    """

    dim: int
    labels: np.ndarray
    recordings: np.ndarray
    items: int


def derived(config: T, facts: Facts) -> tuple[T, dict[str, str]]:
    """The config with a value for every null that has a rule, and the reasons of these values.

    Raises:
        ConfigError: the heads do not divide the derived width.
    """
    reasons = {}
    for name, rule in RULES.items():
        if getattr(config, name) is None:
            value, reasons[name] = rule(config, facts)
            config = config.model_copy(update={name: value})
    return config, reasons


def width(config: Any, facts: Facts) -> tuple[int, str]:
    return derived_width(facts.dim, config.heads, "actionformer"), f"about half of {facts.dim} feature channels"


def upsample(config: Any, facts: Facts) -> tuple[int, str]:
    """Into fewer than `SHORT` rows too few points fit."""
    median = float(np.median(facts.labels))
    short = median < SHORT
    limit = f"fewer than {SHORT:g}" if short else f"{SHORT:g} or more"
    return 2 if short else 1, f"the median of {len(facts.labels)} labels covers {median:.1f} snippets, {limit}"


def levels(config: Any, facts: Facts) -> tuple[int, str]:
    """Half of the longest label should be in the range of the coarsest level."""
    longest, rows = float(facts.labels.max()), config.upsample
    return levels_for(longest * rows), f"the longest label covers {longest * rows:.0f} rows"


def max_length(config: Any, facts: Facts) -> tuple[int, str]:
    """Shorter windows cost less in an epoch and want more epochs."""
    usual, count = int(np.percentile(facts.recordings, 95, method="higher")), len(facts.recordings)
    if usual > LONGEST:
        return LONGEST, f"as ActionFormer's: {usual}, which 95 % of {count} recordings do not exceed, are more"
    return usual, f"95 % of {count} recordings are no longer"


def epochs(config: Any, facts: Facts) -> tuple[int, str]:
    """A few videos are passed over more often."""
    steps = steps_of_epoch(config, facts)
    few = EPOCHS * steps < STEPS
    reason = f"{facts.items} videos of {config.batch_size} a step"
    return (math.ceil(STEPS / steps), f"{reason}: {STEPS} steps") if few else (EPOCHS, reason)


def lr(config: Any, facts: Facts) -> tuple[float, str]:
    rate = min(1e-3, 1e-4 * 512 / config.width * math.sqrt(config.batch_size / 2))
    return rate, f"1e-4 for width 512 and batches of 2, here {config.width} and {config.batch_size}"


def ema_decay(config: Any, facts: Facts) -> tuple[float, str]:
    steps = config.epochs * steps_of_epoch(config, facts)
    return derived_ema(steps), f"{steps} steps in all"


def steps_of_epoch(config: Any, facts: Facts) -> int:
    return max(1, facts.items // config.batch_size)


RULES: Mapping[str, Rule] = {
    rule.__name__: rule for rule in (width, upsample, levels, max_length, epochs, lr, ema_decay)
}
