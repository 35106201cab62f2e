"""PseR's bags: perturbed copies of a seed, and negatives far from all of them.

Source: PseR, proposal propagation (bag of scale and centre perturbations) and its negative proposals, which are a
one-dimensional form of P2BNet's. Legend: G seeds, S scales, K shifts, n negatives, M bag members.
"""

from __future__ import annotations

import numpy as np

from tad.ops.iou import paired_tiou


def perturb(seeds: np.ndarray, scales: np.ndarray | list[float], shifts: np.ndarray | list[float]) -> np.ndarray:
    """The bag of each seed: its length scaled, then its centre shifted by a share of the scaled length.

    Nothing is clipped: members may leave the video.

    Args:
        seeds: [G, 2] starts and ends, any unit.
        scales: [S] ratios of the seed's length.
        shifts: [K] shifts of the centre, relative to the scaled length.

    Returns:
        [G, S * K, 2] float64, scale-major, shifts in the given order.
    """
    seeds = np.asarray(seeds, dtype=np.float64).reshape(-1, 2)
    scales = np.asarray(scales, dtype=np.float64).reshape(1, -1, 1)
    shifts = np.asarray(shifts, dtype=np.float64).reshape(1, 1, -1)
    centre = ((seeds[:, 0] + seeds[:, 1]) / 2)[:, None, None]
    width = (seeds[:, 1] - seeds[:, 0])[:, None, None] * scales
    centre = centre + shifts * width
    bag = np.stack(np.broadcast_arrays(centre - width / 2, centre + width / 2), axis=-1)
    return bag.reshape(len(seeds), scales.size * shifts.size, 2)


def seed_tious(scales: np.ndarray | list[float], shifts: np.ndarray | list[float]) -> np.ndarray:
    """tIoU of each bag member with its seed, [S * K] float64; the same for every seed."""
    unit = np.array([[-0.5, 0.5]])
    bag = perturb(unit, scales, shifts)[0]
    return paired_tiou(bag, np.broadcast_to(unit, bag.shape))


def negative_spans(u1: np.ndarray, u2: np.ndarray, extent: float, margin: float = 0.2) -> np.ndarray:
    """Random segments over a video and `margin` of its length on either side.

    Args:
        u1: [n] uniform numbers in [0, 1): where the segment starts, between -margin * extent and extent.
        u2: [n] uniform numbers in [0, 1): where it ends, between its start and (1 + margin) * extent.
        extent: the video's length, any unit.
        margin: how far segments may leave the video, as a share of its length.

    Returns:
        [n, 2] float64 starts and ends in the unit of `extent`.
    """
    u1, u2 = np.asarray(u1, dtype=np.float64), np.asarray(u2, dtype=np.float64)
    reach = (1 + margin) * extent
    start = -margin * extent + u1 * reach
    return np.stack([start, start + u2 * (reach - start)], axis=-1)


def clear_of(negatives: np.ndarray, members: np.ndarray, tiou_threshold: float) -> np.ndarray:
    """Which negatives have a tIoU below the threshold with every bag member.

    Args:
        negatives: [n, 2] starts and ends.
        members: [M, 2] (or [G, N, 2]) starts and ends of all bag members of the video, same unit.
        tiou_threshold: in (0, 1].

    Returns:
        [n] bool.

    Raises:
        ValueError: the threshold is not in (0, 1].
    """
    if not 0 < tiou_threshold <= 1:
        raise ValueError(f"the tIoU threshold must lie in (0, 1], got {tiou_threshold}")
    negatives = np.asarray(negatives, dtype=np.float64).reshape(-1, 2)
    members = np.asarray(members, dtype=np.float64).reshape(-1, 2)
    # tIoU is at most the ratio of the two lengths, so only members of similar length need to be looked at; sorted by
    # length they are a slice. Negatives are mostly far longer than members: few pairs remain.
    length = members[:, 1] - members[:, 0]
    order = np.argsort(length, kind="stable")
    length = length[order]
    wanted = negatives[:, 1] - negatives[:, 0]
    slack = 1e-9
    first = np.searchsorted(length, wanted * tiou_threshold * (1 - slack), side="left")
    last = np.searchsorted(length, wanted / tiou_threshold * (1 + slack), side="right")
    count = np.maximum(last - first, 0)
    which = np.repeat(np.arange(len(negatives)), count)
    offset = np.arange(len(which)) - np.repeat(np.cumsum(count) - count, count)
    pairs = paired_tiou(negatives[which], members[order[first[which] + offset]])
    clear = np.ones(len(negatives), dtype=bool)
    clear[which[pairs >= tiou_threshold]] = False
    return clear
