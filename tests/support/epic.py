"""Three videos of EPIC-KITCHENS-100: classes of verbs, durations, and segments in both layouts of its CSV files."""

from __future__ import annotations

from pathlib import Path

NAMES = "id,key,instances,category\n0,take,\"['take', 'get']\",retrieve\n1,put-down,['put'],leave\n"
INFO = "video_id,duration,fps,resolution\nP01_01,100.5,59.94,1x1\nP02_01,4000,50,1x1\nP03_01,50,50,1x1\n"
STAMPED = "narration_id,video_id,start_timestamp,stop_timestamp,start_frame,stop_frame,verb,verb_class,noun_class\n"
COUNTED = "narration_id,video,start,stop,verb,noun,action\n"


def epic_source(folder: Path) -> Path:
    """EPIC-KITCHENS-100 with two training videos in one layout and a validation video in the other."""
    folder.mkdir()
    (folder / "EPIC_100_verb_classes.csv").write_text(NAMES)
    (folder / "EPIC_100_video_info.csv").write_text(INFO)
    (folder / "EPIC_100_train.csv").write_text(
        STAMPED
        + "a,P01_01,00:00:01.50,00:01:02.25,7,9,get,0,5\nb,P02_01,01:02:03.04,01:02:04.00,7,9,put,1,5\n"
        + "c,P01_01,00:00:01.50,00:01:02.25,7,9,put,1,5\n"
    )
    (folder / "validation.csv").write_text(COUNTED + "d,P03_01,30,75,1,8,9\n")
    return folder
