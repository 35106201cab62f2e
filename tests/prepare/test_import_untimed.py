"""Videos of published files without a duration: every importer leaves them out, and says which."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tad.data.dataset import Dataset
from tad.errors import DataError
from tad.prepare.import_activitynet import import_activitynet
from tad.prepare.import_epic import import_epic
from tad.prepare.import_hrpro import import_hrpro
from tad.prepare.import_opentad import import_opentad
from tad.prepare.import_wtalc import import_wtalc
from tad.prepare.importer import Import
from tad.prepare.published import told_duration
from tests.support.epic import epic_source
from tests.support.sources import add_features, edited, hrpro_source, opentad_source
from tests.support.wtalc import SMALL, layout

ROW = {"segment": [1, 2], "label": "throw"}
GONE = "1 videos without a duration were left out: gone"
NULLS: list[dict[str, Any]] = [{}, {"duration": None}, {"duration": float("nan")}, {"duration": ""}]


@pytest.mark.parametrize("told", NULLS)
def test_opentad(tmp_path: Path, told: dict[str, Any]) -> None:
    src = opentad_source(tmp_path / "src")
    gone = {"subset": "training", "frame": 250, "annotations": [ROW], **told}
    edited(src / "anno.json", lambda document: document["database"].update(gone=gone))
    np.save(src / "features" / "gone.npy", np.ones((60, 6), np.float32))
    done = import_opentad(src, tmp_path / "out")
    assert GONE in done.warnings and done.videos == {"train": 1, "test": 1} and done.features == 1
    assert "gone" not in Dataset.open(tmp_path / "out").videos_by_id
    assert not (tmp_path / "out" / "features" / "gone.npy").exists()


def test_frames_and_their_rate_stand_in(tmp_path: Path) -> None:
    src = opentad_source(tmp_path / "src")
    known = {"subset": "training", "frame": 250, "fps": 25, "annotations": [ROW]}
    edited(src / "anno.json", lambda document: document["database"].update(known=known))
    done = import_opentad(src, tmp_path / "out")
    assert Dataset.open(tmp_path / "out").duration("known") == 10.0
    assert not any("without a duration" in text for text in done.warnings)


def test_a_subset_of_which_nothing_is_left(tmp_path: Path) -> None:
    src = opentad_source(tmp_path / "src")
    edited(src / "anno.json", lambda document: document["database"]["a"].update(duration=None))
    with pytest.raises(DataError, match="no video of subset training has a duration"):
        import_opentad(src, tmp_path / "out")
    with pytest.raises(DataError, match="no video of subset training has a duration"):
        import_activitynet(src, tmp_path / "out", length=100)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("told", NULLS)
def test_hrpro(tmp_path: Path, told: dict[str, Any]) -> None:
    src = hrpro_source(tmp_path / "src")
    add_features(src, {"a": "train", "gone": "train", "c": "test"})
    document = json.loads((src / "gt_full.json").read_text())
    document["database"]["gone"] = {"fps": 10, "annotations": [], **told}
    (src / "gt_full.json").write_text(json.dumps(document))
    (src / "split_train.txt").write_text("a\ngone\n")
    with (src / "point_labels" / "points.csv").open("a") as file:
        file.write("jump,10,30,gone,21\n")
    done = import_hrpro(src, tmp_path / "out")
    assert GONE in done.warnings and done.videos == {"train": 1, "test": 1}
    assert (done.points, done.features) == (1, 2)


def test_epic(tmp_path: Path) -> None:
    src = epic_source(tmp_path / "epic")
    with (src / "EPIC_100_video_info.csv").open("a") as file:
        file.write("gone,,50,1x1\nnowhere,,50,1x1\n")
    with (src / "EPIC_100_train.csv").open("a") as file:
        file.write("e,gone,00:00:01.50,00:01:02.25,7,9,get,0,5\n" * 2)
    done = import_epic(src, tmp_path / "out", task="verb")
    assert done.warnings == [GONE] and done.videos == {"train": 2, "test": 1}


@pytest.mark.parametrize("none", [None, float("nan")])
def test_wtalc(tmp_path: Path, none: float | None) -> None:
    videos = [*SMALL, ("gone", "validation", 40.0, [(1.0, 2.0, "kick")]), ("x", "other", 40.0, [])]
    notes = layout(tmp_path / "src", videos, ["jump", "kick"])
    np.save(notes / "duration.npy", np.array([64.0, 32.0, 48.0, none, 40.0], dtype=object), allow_pickle=True)
    done = import_wtalc(tmp_path / "src", tmp_path / "out")
    assert GONE in done.warnings and done.videos == {"train": 2, "test": 1} and done.features == 3


def test_activitynet(tmp_path: Path) -> None:
    src = opentad_source(tmp_path / "src")
    gone = {"subset": "training", "annotations": [ROW]}
    edited(src / "anno.json", lambda document: document["database"].update(gone=gone))
    (src / "missing_files.txt").write_text("v_a\n")
    done = import_activitynet(src, tmp_path / "out", length=100)
    assert GONE in done.warnings and done.videos == {"train": 1, "test": 1}
    (src / "missing_files.txt").write_text("v_gone\n")
    assert GONE not in import_activitynet(src, tmp_path / "other", length=100).warnings


def test_many_are_counted_and_some_named() -> None:
    job = Import("opentad", Path("src"), Path("out"))
    job.tell_untimed()
    assert job.warnings == [] and told_duration({"frame": 3}) is None
    job.untimed = {f"v{number}": "" for number in range(7)}
    job.tell_untimed()
    job.tell_untimed({"v0", "v1"})
    assert job.warnings == [
        "7 videos without a duration were left out: v0, v1, v2, v3, v4 and 2 more",
        "5 videos without a duration were left out: v2, v3, v4, v5, v6",
    ]
    with pytest.raises(ValueError, match="duration 0 must be positive"):
        told_duration({"duration": 0})
