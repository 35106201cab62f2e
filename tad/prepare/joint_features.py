"""The features of all videos in one .npy file: an array of objects, or [N, T, D] of resized features."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from tad.data.object_arrays import load
from tad.errors import few, listing
from tad.prepare.output import check_room
from tad.prepare.write import Transfer


@dataclass
class JointFeatures:
    """As tad.prepare.feature_files.Features, from one file; arrays stay in it until they are written.

    Attributes:
        path: the file.
        arrays: [T, D] of each video, in the file's type; width, dtype: of what is written.
    """

    path: Path
    arrays: dict[str, np.ndarray] = field(default_factory=dict)
    width: int | None = None
    dtype: str | None = None
    notes: list[str] = field(default_factory=list)

    @classmethod
    def open(
        cls, path: Path, ids: Sequence[str], wanted: Collection[str], transpose: bool, problems: list[str]
    ) -> JointFeatures:
        """Examines the file; what is wrong with it is appended to problems.

        Args:
            ids: the video of each item.
            wanted: videos whose features are taken.
            transpose: items are [D, T].
        """
        items = load(path)
        if items.ndim == 0 or len(items) != len(ids):
            problems.append(
                f"{path.name}: {'x'.join(map(str, items.shape))} in place of one array for each of {len(ids)} videos"
            )
            return cls(path)
        arrays: dict[str, np.ndarray] = {}
        for video, item in zip(ids, items, strict=True):
            if video not in wanted:
                continue
            if not isinstance(item, np.ndarray) or item.dtype.kind != "f" or item.ndim != 2 or 0 in item.shape:
                shape = f"{item.dtype} {list(item.shape)}" if isinstance(item, np.ndarray) else type(item).__name__
                problems.append(f"{path.name}: video {video}: {shape} is no [T, D] array of floats")
            else:
                arrays[video] = item.T if transpose else item
        if sum(array.nbytes for array in arrays.values()) > path.stat().st_size:
            problems.append(f"{path.name}: several videos refer to the same array")
        widths = {array.shape[1] for array in arrays.values()}
        if len(widths) > 1:
            problems.append(f"{path.name}: several widths: {few([str(width) for width in sorted(widths)])}")
        half = bool(arrays) and all(array.dtype == np.float16 for array in arrays.values())
        kept = "float16" if half else "float32"
        notes = [f"features of {len(arrays)} videos are taken out of {path.name}, as {kept}"] if arrays else []
        return cls(path, arrays, next(iter(widths), None), kept if arrays else None, notes)

    def __len__(self) -> int:
        return len(self.arrays)

    def paths(self) -> list[Path]:
        """All files that will be read."""
        return [self.path]

    def write(self, folder: Path, how: Transfer) -> list[str]:
        """Writes folder/features/ID.npy, one video at a time; `how` makes no difference.

        Returns:
            Warnings: videos whose features hold NaN or Inf.

        Raises:
            DataError: the disk has too little room.
        """
        if self.dtype is None:
            return []
        check_room(folder, sum(array.size for array in self.arrays.values()) * np.dtype(self.dtype).itemsize)
        (folder / "features").mkdir(exist_ok=True)
        bad = []
        for video, array in self.arrays.items():
            with np.errstate(over="ignore"):  # what is beyond float32 becomes Inf and is reported
                values = np.ascontiguousarray(array, dtype=self.dtype)
            with (folder / "features" / f"{video}.npy").open("xb") as file:
                np.lib.format.write_array(file, values, allow_pickle=False)
            broken = np.count_nonzero(~np.isfinite(values))
            if broken:
                bad.append(f"video {video}: {broken} of {values.size} values")
        return [f"features with NaN or Inf: {listing(bad, 5)}"] if bad else []
