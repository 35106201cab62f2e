"""Points and proposals as plain tuples, and the seeds that a rule selects from them."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st

from tad.methods.common.seeds import select_seeds


def select(points, proposals, rule, duration=np.inf):
    """Seeds from points [(time, label)] and proposals [(start, end, score, label)]."""
    time, label = (np.array(x) for x in zip(*points, strict=True))
    table = np.array(proposals, dtype=float).reshape(-1, 4)
    return select_seeds(time.astype(float), label, table[:, :2], table[:, 2], table[:, 3].astype(int), rule, duration)


many_points = st.lists(st.tuples(st.integers(0, 60), st.integers(0, 2)), min_size=1, max_size=12, unique=True)
many_proposals = st.lists(
    st.tuples(st.integers(0, 60), st.integers(1, 30), st.floats(-1, 1), st.integers(0, 2)), max_size=20
)
