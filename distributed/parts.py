"""A map stage's output while it is being made: one part per chunk of videos, then one file.

A chunk's part is written under a temporary name and renamed, so a part that exists is whole; a killed map resumes
with the chunks that have none. Memory does not grow with the number of videos.
"""

from __future__ import annotations

import math
import os
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from distributed.partial import Partial
from tad.data.segments import SCHEMA, Segments
from tad.errors import DataError
from tad.stage import Arrays, Context, MapStage

PART_SCHEMA = SCHEMA.append(pa.field("error", pa.string()))
"""The segments of a chunk's videos; a video that failed has one row with its error and no segment."""


class Chunk(NamedTuple):
    """Some videos of a map, and where their part goes."""

    number: int
    videos: list[str]


class Done(NamedTuple):
    """A finished chunk."""

    videos: int
    segments: int
    failed: int


def chunk_size(videos: int) -> int:
    """Videos in a chunk, about sqrt(videos / 5).

    Large chunks spare the driver, whose time for each is fixed; small ones keep many actors busy to the end. The sum of
    both is least at the square root of videos x driver's seconds a chunk / model's seconds a video; docs/scale.md.
    """
    return max(1, math.isqrt(videos // 5))


def chunks(videos: list[str]) -> list[Chunk]:
    """The videos in order, in chunks whose size depends on their number only."""
    size = chunk_size(len(videos))
    return [Chunk(i, videos[at : at + size]) for i, at in enumerate(range(0, len(videos), size))]


def part_name(chunk: int) -> str:
    return f"parts/{chunk:06d}.parquet"


def open_chunk_function(stage: MapStage, context: Context) -> Callable[[Chunk, Partial], Done]:
    """Opens the stage; the result maps one chunk, writes its part (and arrays), and sends them to the bucket."""
    function = stage.open(context)

    def run(chunk: Chunk, partial: Partial) -> Done:
        tables, arrays, failed, folder = [], [], 0, partial.folder
        for video in chunk.videos:
            try:
                result = function(video)
                if isinstance(result, Segments):
                    tables.append(result.table.append_column("error", pa.nulls(len(result), pa.string())))
                else:
                    arrays += save_arrays(folder, video, result)
            except Exception as error:
                failed += 1
                row = dict.fromkeys(PART_SCHEMA.names) | {"video_id": video, "error": _describe(error)}
                tables.append(pa.Table.from_pylist([row], schema=PART_SCHEMA))
        table = pa.concat_tables([t.cast(PART_SCHEMA) for t in tables]) if tables else PART_SCHEMA.empty_table()
        path = folder / part_name(chunk.number)
        path.parent.mkdir(exist_ok=True)
        temporary = path.with_name(f".{path.name}.{os.getpid()}")
        pq.write_table(table, temporary)
        temporary.replace(path)
        partial.send([*arrays, part_name(chunk.number)])
        return Done(len(chunk.videos), table.num_rows - failed, failed)

    return run


def save_arrays(folder: Path, video: str, arrays: Arrays) -> list[str]:
    """Writes a video's arrays below the folder; the names of the files."""
    for key, array in arrays.items():
        path = folder / key / f"{video}.npy"
        path.parent.mkdir(exist_ok=True)
        temporary = path.with_name(f".{video}.{os.getpid()}")
        with temporary.open("wb") as file:
            np.save(file, array, allow_pickle=False)
        temporary.replace(path)
    return [f"{key}/{video}.npy" for key in arrays]


def pending(folder: Path, every: list[Chunk]) -> list[Chunk]:
    """The chunks that have no part yet."""
    return [chunk for chunk in every if not (folder / part_name(chunk.number)).exists()]


def collect(folder: Path, every: list[Chunk]) -> tuple[int, dict[str, str]]:
    """Streams all parts, in the order of the videos, into segments.parquet.

    Returns:
        The number of segments, and the error of each video that failed. The parts of failed videos are removed, so
        that the same command tries them again and nothing else.
    """
    failures: dict[str, str] = {}
    rows = 0
    with pq.ParquetWriter(folder / "segments.parquet", SCHEMA) as writer:
        for chunk in every:
            path = folder / part_name(chunk.number)
            table = pq.read_table(path, schema=PART_SCHEMA)
            bad = table.column("error").is_valid()
            if bad.to_numpy(zero_copy_only=False).any():
                failures |= {r["video_id"]: r["error"] for r in table.filter(bad).to_pylist()}
                path.unlink()
                continue
            rows += table.num_rows
            writer.write_table(table.select(SCHEMA.names))
    return rows, failures


def _describe(error: Exception) -> str:
    if isinstance(error, DataError):
        return str(error)
    last = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__}: {error} ({Path(last.filename).name}:{last.lineno})"
