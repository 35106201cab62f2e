"""Options that stages had before APL's parts became methods of their own, at the values that change nothing.

They still count in fingerprints (`tad.options.identity`), so what was made before is found.
"""

from __future__ import annotations

from typing import Any

_CONTRAST: dict[str, Any] = {
    "contrast_weight": 0.0,
    "contrast_frames": 80,
    "contrast_temperature": 0.1,
    "contrast_unlabelled": True,
}
ACTIONFORMER: dict[str, Any] = {
    **_CONTRAST,
    "quality": {
        "enabled": False,
        "weight": 0.1,
        "soft_target": "measured",
        "tnd_power": 2,
        "focal": 2.0,
        "negative_weight": 0.75,
    },
    "init": "none",
    "unlabelled_weight": None,
}
READING: dict[str, Any] = {"quality_power": 1.0}
BMN: dict[str, Any] = {**_CONTRAST, "quality": False, "quality_weight": 0.1, "unlabelled_weight": None}
