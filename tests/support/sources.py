"""Small datasets in the layouts of other code bases."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

HEADER = "class,start_frame,stop_frame,video_id,point\n"


def hrpro_source(root: Path) -> Path:
    """Two training videos and a test video at 10 frames a second, one listed nowhere."""
    (root / "point_labels").mkdir(parents=True)
    row = {"segment": ["1.0", 3], "label": "jump", "segment(frames)": [10, 30], "label_id": 0}
    video = {"subset": "Validation", "duration": 6.4, "fps": 10, "annotations": [row]}
    database = {v: json.loads(json.dumps(video)) for v in ("a", "b", "c", "unlisted")}
    database["c"]["annotations"][0]["label"] = "throw"
    (root / "gt_full.json").write_text(json.dumps({"database": database}))
    (root / "split_train.txt").write_text("a\nb\n")
    (root / "split_test.txt").write_text("c\n")
    (root / "point_labels" / "points.csv").write_text(HEADER + "jump,10,30,a,21\njump,10,30,b,63\n")
    return root


def add_features(root: Path, ids: dict[str, str], dim: int = 4) -> None:
    for video_id, role in ids.items():
        (root / "features" / role).mkdir(parents=True, exist_ok=True)
        np.save(root / "features" / role / f"{video_id}.npy", np.ones((10, dim), np.float32))


def opentad_source(root: Path) -> Path:
    (root / "features").mkdir(parents=True)
    video = {"subset": "training", "duration": 10.0, "frame": 250}
    annotations = {"annotations": [{"segment": [1, 2], "label": "throw"}]}
    document = {"a": video | annotations, "b": video | {"subset": "validation", "fps": 30} | annotations}
    (root / "anno.json").write_text(json.dumps({"database": document}))
    (root / "category_idx.txt").write_text("throw\njump\n")
    np.save(root / "features" / "a.npy", np.ones((60, 6), np.float32))
    return root


def edited(path: Path, change: Any) -> None:
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document))
