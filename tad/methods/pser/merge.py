"""PseR's merge: the weighted mean of a bag's best members becomes the pseudo-label.

Source: PseR, final pseudo-label. Legend: G bags, N members of a bag, C classes.
"""

from __future__ import annotations

from typing import Literal

import numpy as np

from tad import bounds
from tad.methods.common.seeds import inside, neighbour_times
from tad.options import option
from tad.ranges import Choice, Float
from tad.stages import StageConfig

TIE = 1e-6
"""Members whose weights differ by less than this share of the weight are tied."""

FLOOR = 1e-12


class MergeConfig(StageConfig):
    """How the members of a bag become one segment."""

    top_k: bounds.Count | None = option(
        None,
        "best members that are merged; null: all",
        paper=8,
        tune=Choice(None, 4, 8, 12),
        why="paper 8; null merges all, and the smallest bag has 15 members",
    )
    ties: Literal["all", "first"] = option(
        "all",
        "members tied with the last of the top_k: all count, or the first in the bag's order",
        paper="first",
        tune=Choice("all", "first"),
        why="paper first; matters only where the best few are merged",
        when=("top_k", (4, 8, 12)),
    )
    class_power: bounds.Power = option(
        0.0,
        "exponent of the class probability; 0 leaves it out",
        paper=1.0,
        tune=Float(0.0, 3.0),
        why="paper 1; 0 leaves the class probability out",
    )
    instance_power: bounds.Power = option(
        0.0,
        "exponent of the share within the bag",
        paper=1.0,
        tune=Float(0.0, 3.0),
        why="paper 1; 0 leaves the share within the bag out",
    )
    rank_power: bounds.Power = option(
        4.0,
        "exponent of the temporal confidence",
        paper=1.0,
        tune=Float(0.0, 8.0),
        why="paper 1; from 8 on the best member decides alone",
    )
    contain_point: bool = option(
        True,
        "stretch a segment that misses its point until it holds it",
        paper=False,
        tune=Choice(True, False),
        why="paper false; the point lies inside its action, or the annotator slipped",
    )
    separate: bool = option(
        True,
        "cut a segment halfway to points of its class that it reaches",
        paper=False,
        tune=Choice(True, False),
        why="paper false; two actions of a class do not share a point",
    )
    clamp: Literal["duration", "snippets"] = option(
        "duration", "cut segments at the end of the video, or (published) of its last but one row", paper="snippets"
    )
    decimals: int | None = option(
        None, "round seconds to this many decimals; null: do not", ge=0, le=bounds.DIGITS, paper=3
    )


def member_weights(cls: np.ndarray, ins: np.ndarray, rank: np.ndarray, config: MergeConfig) -> np.ndarray:
    """Weight of every member: class probability x share within the bag x temporal confidence, each to its power.

    Args:
        cls: [G, N] class logits at the class of the bag's point.
        ins: [G, N] instance logits at that class.
        rank: [G, N] temporal confidence in (0, 1).
        config: gives the powers (published: 1, 1, 1).

    Returns:
        [G, N] float64, positive; the largest of each bag is 1.
    """
    cls, ins = cls.astype(np.float64), ins.astype(np.float64)
    log_class = -np.logaddexp(0.0, -cls)
    log_rank = np.log(np.maximum(rank.astype(np.float64), FLOOR))
    # The softmax's denominator is the same for all members of a bag and cancels in the merge.
    log_weight = config.class_power * log_class + config.instance_power * ins + config.rank_power * log_rank
    return np.exp(log_weight - log_weight.max(axis=1, keepdims=True))


def merge(
    bags: np.ndarray, weights: np.ndarray, top_k: int | None = None, ties: Literal["all", "first"] = "all"
) -> tuple[np.ndarray, np.ndarray]:
    """The weighted mean of the best members of every bag.

    Args:
        bags: [G, N, 2] starts and ends, any unit.
        weights: [G, N], not negative, with a positive one in each bag.
        top_k: members that count; None or more than N: all.
        ties: what to do with members tied at the top_k-th place (see MergeConfig).

    Returns:
        [G, 2] merged segments and [G, N] the share of each member (sums to 1; 0 outside the chosen).
    """
    groups, members = weights.shape
    if top_k is not None and top_k < members and groups:
        order = np.argsort(-weights, axis=1, kind="stable")
        if ties == "first":
            chosen = np.zeros(weights.shape, dtype=bool)
            np.put_along_axis(chosen, order[:, :top_k], True, axis=1)
        else:
            last = np.take_along_axis(weights, order[:, top_k - 1 : top_k], axis=1)
            chosen = weights >= last * (1 - TIE)
        weights = np.where(chosen, weights, 0.0)
    share = weights / weights.sum(axis=1, keepdims=True)
    return (share[..., None] * bags).sum(axis=1), share


def repair(
    spans: np.ndarray, time: np.ndarray, label: np.ndarray, limits: tuple[float, float], config: MergeConfig
) -> np.ndarray:
    """Merged segments of one video made into valid pseudo-labels: start < end, within the limits.

    Args:
        spans: [G, 2] seconds.
        time: [G] seconds, ascending: the points the segments answer to.
        label: [G] class indices.
        limits: seconds, first and last allowed time.
        config: which repairs.
    """
    if config.separate:
        before, after = neighbour_times(time, label, same_class=True)
        start, end = spans.T
        spans = np.stack(
            [
                np.where(start <= before, np.maximum(start, (before + time) / 2), start),
                np.where(end >= after, np.minimum(end, (after + time) / 2), end),
            ],
            axis=1,
        )
    if config.contain_point:
        spans = np.stack([np.minimum(spans[:, 0], time), np.maximum(spans[:, 1], time)], axis=1)
    spans = inside(spans, *limits)
    if config.decimals is not None:
        rounded = np.round(spans, config.decimals)
        spans = np.where((rounded[:, 1] > rounded[:, 0])[:, None], rounded, spans)
    return spans
