"""EPIC-KITCHENS-100: both layouts of its CSV files, verbs and nouns, and the errors of bad ones."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from tad.commands import importing as commands
from tad.data.dataset import Dataset
from tad.errors import DataError
from tad.evaluation.ground_truth import ground_truth, raw_ground_truth
from tad.prepare.check import check
from tad.prepare.import_epic import import_epic
from tests.support.epic import COUNTED, epic_source
from tests.support.shared import shared_path


@pytest.fixture
def src(tmp_path: Path) -> Path:
    return epic_source(tmp_path / "epic")


def test_the_published_files(tmp_path: Path) -> None:
    made = import_epic(shared_path("data", "ek100"), tmp_path / "out", task="verb")
    assert made.videos == {"train": 495, "test": 138} and made.warnings == []
    data = Dataset.open(tmp_path / "out")
    assert len(data.classes) == 97 and data.classes[:2] == ["take", "put"]
    assert data.manifest.grid.dim == 2304 and data.supervision(data.videos("train")[0]) == "none"
    found = ground_truth(data, "train")
    assert len(found) + len(ground_truth(data, "test")) + 4 == 67217 + 9668
    kinds = Counter(f.kind for f in check(data.root))
    assert kinds["duplicate segment"] == 4 and not kinds["segment beyond video"]
    assert 2 < (found.end - found.start).mean() < 4
    assert kinds["no features"] == 1


def test_frames_and_timestamps_of_the_published_validation_set_agree(tmp_path: Path) -> None:
    """The same 9,668 segments in both layouts, which differ by the rounding to a thirtieth of a second."""
    src, rows = shared_path("data", "ek100"), []
    for name in ("EPIC_100_validation.csv", "validation.csv"):
        import_epic(src, tmp_path / name, task="noun", test=name)
        assert Dataset.open(tmp_path / name).classes[:2] == ["tap", "spoon"]
        rows.append(raw_ground_truth(tmp_path / name, ["validation"]))
    stamped, counted = rows
    assert stamped.videos == counted.videos and np.array_equal(stamped.label, counted.label)
    for mine, theirs in ((stamped.start, counted.start), (stamped.end, counted.end)):
        assert np.abs(mine - theirs).max() <= 1 / 30 + 1e-6
    assert np.abs(stamped.start - counted.start).max() > 0.03


def test_both_layouts_become_seconds(src: Path, tmp_path: Path) -> None:
    (src / "features").mkdir()
    np.save(src / "features" / "P01_01.npy", np.zeros((186, 6), np.float32))
    made = import_epic(src, tmp_path / "out", task="verb")
    assert made.videos == {"train": 2, "test": 1} and made.features == 1
    assert "no file for 2 of 3 videos: P02_01, P03_01" in made.warnings[0]
    data = Dataset.open(tmp_path / "out")
    assert data.name == "epic100-verb" and data.classes == ["take", "put-down"] and data.manifest.grid.dim == 6
    raw = raw_ground_truth(data.root, [])
    found = sorted(zip(raw.video_id, raw.label, raw.start, raw.end, strict=True))
    assert found == [
        ("P01_01", "put-down", 1.5, 62.25),
        ("P01_01", "take", 1.5, 62.25),
        ("P02_01", "put-down", 3723.04, 3724.0),
        ("P03_01", "put-down", 1.0, 2.5),
    ]
    # ActionFormer's clock: row i sees 32 frames from 16 i on, at 30 frames a second.
    assert data.grid("P01_01").from_position(np.array([0.0, 1.0])) == pytest.approx([16 / 30, 32 / 30])
    assert data.duration("P02_01") == 4000


def test_every_problem_is_listed_and_nothing_written(src: Path, tmp_path: Path) -> None:
    (src / "validation.csv").write_text(
        COUNTED
        + "d,P03_01,75,30,1,8,9\ne,P03_01,1,x,1,8,9\nf,P03_01,1,2,7,8,9\ng,P09_01,1,2,1,8,9\nh,P01_01,1,2,1,8,9\n"
    )
    with (src / "EPIC_100_train.csv").open("a") as file:
        file.write("i,P01_01,00:01,00:02,7,9,get,0,5\nj,P01_01,00:00:01,00:00:02,7,9,get,-1,5\n")
    with pytest.raises(DataError) as caught:
        import_epic(src, tmp_path / "out", task="verb")
    for part in (
        "7 problems",
        "validation.csv, line 2: video P03_01: '75' to '30' is no interval",
        "validation.csv, line 3: video P03_01: '1' to 'x' is no interval",
        "validation.csv, line 4: video P03_01: verb '7' is not in the list of 2 classes",
        "validation.csv, line 5: video P09_01 is not in EPIC_100_video_info.csv",
        "validation.csv, line 6: video P01_01 is in the other file, too",
    ):
        assert part in str(caught.value), str(caught.value)
    assert not (tmp_path / "out").exists()
    with pytest.raises(DataError, match=r"expected EPIC_100_noun_classes\.csv; no such file"):
        import_epic(src, tmp_path / "out", task="noun")
    with pytest.raises(DataError, match=r"no column verb; found narration_id"):
        (src / "validation.csv").write_text("narration_id,video,start,stop\n")
        import_epic(src, tmp_path / "out", task="verb")
    with pytest.raises(DataError, match=r"expected mine\.csv"):
        import_epic(src, tmp_path / "out", task="verb", train="mine.csv")


def test_the_command(src: Path, tmp_path: Path) -> None:
    arguments = ["epic", str(src), str(tmp_path / "out"), "--task", "verb", "--dim", "12", "--name", "kitchen"]
    said = CliRunner().invoke(commands.import_, arguments)
    assert said.exit_code == 0, said.output
    assert "2 train, 1 test videos, 0 points, 0 feature files" in said.output
    data = Dataset.open(tmp_path / "out")
    assert data.name == "kitchen" and data.manifest.grid.dim == 12
    assert CliRunner().invoke(commands.import_, arguments[:3]).exit_code == 2, "a task is needed"
