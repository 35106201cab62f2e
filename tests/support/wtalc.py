"""W-TALC's layout: arrays of objects beside a list of features."""

from __future__ import annotations

import numpy as np


def objects(items):
    array = np.empty(len(items), dtype=object)
    for i, item in enumerate(items):
        array[i] = item
    return array


def layout(folder, videos, classes, width=8):
    """videos: (name, subset, duration, [(start, end, label)]). Names are bytes, lists are objects, as published."""
    notes = folder / "Mine-Annotations"
    notes.mkdir(parents=True)
    arrays = {
        "classlist": np.array([c.encode() for c in classes]),
        "videoname": np.array([v[0].encode() for v in videos]),
        "subset": np.array([v[1].encode() for v in videos]),
        "duration": np.array([v[2] for v in videos]),
        "extracted_fps": np.array([25] * len(videos), dtype=object),
        "segments": objects([[[s, e] for s, e, _ in v[3]] for v in videos]),
        "labels": objects([[label for *_, label in v[3]] for v in videos]),
        "labels_all": objects([sorted({label for *_, label in v[3]}) for v in videos]),
    }
    for name, array in arrays.items():
        np.save(notes / f"{name}.npy", array, allow_pickle=array.dtype.hasobject)
    if width:
        rows = [max(1, int(v[2] * 25 / 16)) for v in videos]
        features = objects([np.full((n, width), i, dtype="f4") for i, n in enumerate(rows)])
        np.save(folder / "Mine-I3D-JOINTFeatures.npy", features, allow_pickle=True)
    return notes


SMALL = [
    ("v_-a", "validation", 64.0, [(1.0, 5.0, "jump"), (10.0, 12.5, "kick"), (20.0, 20.0, "jump")]),
    ("v_b", "validation", 32.0, []),
    ("v_c", "test", 48.0, [(2.0, 9.0, "kick")]),
]
