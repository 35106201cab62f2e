"""RoI align and RoI max pooling of one video's features [T, D] and one roi [start, end), bin by bin."""

from __future__ import annotations

import math

import torch


def loop_align(features, start, end, bins):
    """[D, bins] means of samples between rows."""
    rows = len(features)
    width = max(end - start, 1.0) / bins
    count = math.ceil(width)
    out = torch.zeros(features.shape[1], bins, dtype=features.dtype)
    for p in range(bins):
        for k in range(count):
            x = start + p * width + (k + 0.5) * width / count
            if x < -1 or x > rows:
                continue
            x = min(max(x, 0.0), rows - 1)
            low = int(x)
            high = min(low + 1, rows - 1)
            out[:, p] += ((1 - (x - low)) * features[low] + (x - low) * features[high]) / count
    return out


def loop_max(features, start, end, bins):
    """[D, bins] largest values of the rows that a bin touches; 0 where it touches none."""
    width = max(end - start, 1.0) / bins
    out = torch.zeros(features.shape[1], bins, dtype=features.dtype)
    for p in range(bins):
        low = max(0, math.floor(start + p * width))
        high = min(len(features), math.ceil(start + (p + 1) * width))
        if low < high:
            out[:, p] = features[low:high].max(0).values
    return out
