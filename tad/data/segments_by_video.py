"""The segments of one video at a time, from a Parquet file of any size."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tad.data.columns import checked
from tad.data.result_files import opened_parquet, plain_columns
from tad.data.segments import Segments, codes
from tad.errors import DataError

GROUPS = 2
"""Row groups that stay in memory: the rows of a video may lie in two, and those of the next one beside them."""


class SegmentsByVideo(Mapping[str, Segments]):
    """The rows of each video of a segments.parquet, read when they are asked for; videos in order of first appearance.

    In memory are the ids, where their rows begin, and two row groups. A file in which the rows of a video do not lie
    side by side, as adopted ones of earlier versions may, is held whole. Threads may share it.

    Args:
        path: of a file that `Segments.to_parquet` or a map wrote.
        failed: makes the error to raise of one that comes up when rows are read.

    Attributes:
        labels: the class names of all rows.
    """

    def __init__(self, path: Path, failed: Callable[[Exception], Exception]) -> None:
        self._path, self._failed, self._lock = path, failed, threading.Lock()
        self._file = opened_parquet(path)
        self._groups = np.cumsum([0, *(self._file.metadata.row_group(i).num_rows for i in self._every_group())])
        self._group = lru_cache(GROUPS)(self._read)
        self.labels: set[str] = set()
        self._place: dict[str, int] = {}
        self._starts = np.array(self._runs())
        side_by_side = len(self._place) == len(self._starts) - 1
        self._whole = None if side_by_side else Segments.from_parquet(path).by_video()

    def __len__(self) -> int:
        return len(self._place)

    def __iter__(self) -> Iterator[str]:
        return iter(self._place)

    def __contains__(self, video: object) -> bool:
        return video in self._place

    def __getitem__(self, video: str) -> Segments:
        place = self._place[video]
        if self._whole is not None:
            return self._whole[video]
        start, end = self._starts[place : place + 2].tolist()
        first, last = self._groups.searchsorted([start, end - 1], side="right") - 1
        begins = self._groups[first : last + 1].tolist()
        try:
            with self._lock:
                groups = [self._group(group) for group in range(first, last + 1)]
        except Exception as error:
            raise self._failed(error) from error
        parts = [t.slice(max(start - b, 0), end - max(start, b)) for t, b in zip(groups, begins, strict=True)]
        return Segments._checked(parts[0] if len(parts) == 1 else pa.concat_tables(parts))

    def _every_group(self) -> range:
        return range(self._file.num_row_groups)

    def _read(self, group: int) -> pa.Table:
        rows = plain_columns(self._file.read_row_group(group), self._path, int(self._groups[group]))
        return Segments(checked(rows, str(self._path), None, ordered=True)).table

    def _runs(self) -> list[int]:
        """Fills in labels and places; the rows at which another video begins, and the number of all rows."""
        starts: list[int] = []
        before = None
        for group in self._every_group():
            table = self._file.read_row_group(group, ["video_id", "label"])
            if missing := [name for name in table.column_names if table.column(name).null_count]:
                raise DataError(f"{self._path}: {missing[0]} is missing")
            found, names = codes(table.column("label"))
            self.labels.update(names[i] for i in np.unique(found))
            found, names = codes(table.column("video_id"))
            names = pc.utf8_trim_whitespace(pa.array(names, pa.string())).to_pylist()
            for at in np.flatnonzero(np.diff(found, prepend=-1)).tolist():
                video = names[found[at]]
                if video != before:
                    starts.append(int(self._groups[group]) + at)
                    self._place.setdefault(video, len(starts) - 1)
                before = video
        return [*starts, int(self._groups[-1])]
