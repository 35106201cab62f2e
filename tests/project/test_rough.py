"""The whole table of bad inputs, and kills at random moments; both take minutes."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.rough import kills


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_every_bad_input_ends_as_it_should():
    # In a process of its own: it forks, and here Ray's threads may be alive.
    done = subprocess.run([sys.executable, "-m", "tests.rough"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-5000:]


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("kind", ["local", pytest.param("ray", marks=pytest.mark.ray), "search"])
def test_random_kills_do_not_change_the_result(kind):
    assert kills.main(kind, 6) == 0
