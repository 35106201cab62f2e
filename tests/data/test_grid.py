"""The snippet grid: the three published conventions by hand, round trips, half a snippet."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tad.data.grid import SnippetGrid

grids = st.builds(
    SnippetGrid,
    fps=st.floats(1, 120),
    stride=st.floats(0.5, 64),
    window=st.floats(0.5, 64),
    length=st.integers(1, 10_000),
    offset=st.floats(-32, 32),
)
seconds = st.floats(0, 10_000)


@settings(deadline=None)
@given(grids, seconds)
def test_seconds_survive_the_round_trip(grid, time):
    assert grid.from_position(grid.to_position(time)) == pytest.approx(time, abs=1e-6)
    assert grid.from_edge(grid.to_edge(time)) == pytest.approx(time, abs=1e-6)


@settings(deadline=None)
@given(grids, st.integers(0, 9_999))
def test_row_centres_are_at_integer_positions_and_half_edges(grid, row):
    frame = grid.offset + row * grid.stride + grid.window / 2
    assert grid.to_position(frame / grid.fps) == pytest.approx(row, abs=1e-6)
    assert grid.to_edge(frame / grid.fps) == pytest.approx(row + 0.5, abs=1e-6)


@settings(deadline=None)
@given(grids, seconds)
def test_the_row_is_the_cell_that_holds_the_edge_coordinate(grid, time):
    row = int(grid.row(time))
    assert 0 <= row < grid.length
    edge = grid.to_edge(time)
    if 0 <= edge < grid.length:
        assert row - 1e-6 <= edge < row + 1 + 1e-6


@pytest.mark.parametrize(
    ("grid", "time", "position", "edge"),
    [
        # HR-Pro: x = t * 25 / 16 is an edge; 6.4 s is the border of rows 9 and 10.
        (SnippetGrid(25, 16, 16, 100), 6.4, 9.5, 10.0),
        # ActionFormer on THUMOS14: g = t * fps / 4 - 2 is a position; frame 48 of 30 fps.
        (SnippetGrid(30, 4, 16, 100), 1.6, 10.0, 10.5),
        # The same, NTSC: frame 300 at 29.97 frames a second.
        (SnippetGrid(29.97, 4, 16, 100), 300 / 29.97, 73.0, 73.5),
        # 100 rows over 50 s: the centre of row 0 is at 0.25 s; 10 s is the border of rows 19 and 20.
        (SnippetGrid.resized(50.0, 100), 10.0, 19.5, 20.0),
        # A window that starts 8 frames before the video: the first row is centred on time 0.
        (SnippetGrid(25, 16, 16, 100, offset=-8), 0.0, 0.0, 0.5),
    ],
)
def test_published_conventions(grid, time, position, edge):
    assert grid.to_position(time) == pytest.approx(position, abs=1e-9)
    assert grid.to_edge(time) == pytest.approx(edge, abs=1e-9)


def test_hrpro_point_index_is_the_published_floor():
    """k = floor(frame * 25 / (16 * fps)): every frame of a minute, for each rate of THUMOS14."""
    for fps in (24, 25, 30):
        frames = np.arange(60 * fps)
        rows = SnippetGrid(25, 16, 16, 10_000).row(frames / fps)
        np.testing.assert_array_equal(rows, frames * 25 // (16 * fps))


def test_expected_length():
    assert SnippetGrid.expected_length(64.0, 25, 16, 16) == 100
    assert SnippetGrid.expected_length(64.63, 25, 16, 16) == 100
    assert SnippetGrid.expected_length(10.0, 30, 4, 16) == 72  # 1 + (300 - 16) / 4
    assert SnippetGrid.expected_length(0.1, 25, 16, 16) == 1


@pytest.mark.parametrize("bad", [{"fps": 0}, {"stride": 0}, {"window": -1}, {"length": 0}, {"fps": float("nan")}])
def test_impossible_grids_are_refused(bad):
    with pytest.raises(ValueError, match="snippet grid needs"):
        SnippetGrid(**({"fps": 25, "stride": 16, "window": 16, "length": 4} | bad))


def test_arrays_convert_like_numbers():
    grid = SnippetGrid(25, 16, 16, 50)
    times = np.array([0.0, 0.64, 3.3])
    np.testing.assert_array_equal(grid.to_edge(times), [grid.to_edge(t) for t in times.tolist()])
