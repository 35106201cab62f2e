"""A map stage's output while it is being made: one part per chunk of videos, then one file.

A chunk's part is written when its arrays are on the disk, so a part that exists is whole; a killed map resumes with the
chunks that have none. Memory does not grow with the number of videos.
"""

from __future__ import annotations

import io
import json
import math
import os
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from distributed.engine.disk import writing
from distributed.engine.locks import Tell
from distributed.engine.seals import digest_of, wrong
from distributed.engine.unfinished import OUTPUT, Partial, make_folder
from tad.data.artifact import damaged, set_aside
from tad.data.reading import in_threads
from tad.data.segments import SCHEMA, Segments
from tad.errors import DamagedError, DataError, first_line
from tad.files import beside, sync, whole
from tad.stages import Context, MapStage

CHUNKS = "chunks"
ARRAYS = b"arrays"
"""In the metadata of a part: size and digest of each array's file that belongs to it."""
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
    bytes: int


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
    return f"{CHUNKS}/{chunk:06d}.parquet"


def open_chunk_function(stage: MapStage, context: Context) -> Callable[[Chunk, Partial], Done]:
    """Opens the stage; the result maps one chunk, writes its part (and arrays), and sends them to the bucket."""
    function = stage.open(context)

    def run(chunk: Chunk, partial: Partial) -> Done:
        tables: list[pa.Table] = []
        arrays: dict[str, str] = {}
        size, failed = 0, 0
        for video in chunk.videos:
            files: dict[str, bytes] = {}
            try:
                result = function(video)
                if isinstance(result, Segments):
                    tables.append(result.table.append_column("error", pa.nulls(len(result), pa.string())))
                else:
                    files = {f"{OUTPUT}/{key}/{video}.npy": _npy(array) for key, array in result.items()}
            except DamagedError:
                raise  # no fault of the video
            except Exception as error:
                failed += 1
                row = dict.fromkeys(PART_SCHEMA.names) | {"video_id": video, "error": _describe(error)}
                tables.append(pa.Table.from_pylist([row], schema=PART_SCHEMA))
            with writing(partial.folder):
                for name, content in files.items():
                    _write(partial.folder / name, content)
            arrays |= {name: digest_of(content) for name, content in files.items()}
            size += sum(len(content) for content in files.values())
        table = pa.concat_tables([t.cast(PART_SCHEMA) for t in tables]) if tables else PART_SCHEMA.empty_table()
        table = table.replace_schema_metadata({ARRAYS: json.dumps(arrays)})
        path = partial.folder / part_name(chunk.number)
        with writing(partial.folder):
            in_threads(lambda name: sync(partial.folder / name), arrays)
            for folder in {(partial.folder / name).parent for name in arrays}:
                sync(folder)
            make_folder(path.parent)
            with whole(path) as temporary:
                pq.write_table(table, temporary, write_page_checksum=True)
        partial.send([*arrays, part_name(chunk.number)])
        return Done(len(chunk.videos), table.num_rows - failed, failed, path.stat().st_size + size)

    return run


def _npy(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, array, allow_pickle=False)
    return file.getvalue()


def _write(path: Path, content: bytes) -> None:
    """Under a name that no other machine takes, then renamed; on the disk only before the part is written."""
    make_folder(path.parent.parent)
    make_folder(path.parent)
    temporary = beside(path)
    temporary.write_bytes(content)
    temporary.replace(path)


def pending(folder: Path, every: list[Chunk]) -> list[Chunk]:
    """The chunks that have no part yet."""
    try:
        there = set(os.listdir(folder / CHUNKS))
    except FileNotFoundError:
        there = set()
    return [chunk for chunk in every if Path(part_name(chunk.number)).name not in there]


def check_parts(folder: Path, every: list[Chunk], tell: Tell) -> None:
    """Sets aside parts of an earlier attempt that cannot be read or lack an array, so that they are made again."""
    todo = {chunk.number for chunk in pending(folder, every)}
    for chunk in every:
        if chunk.number in todo:
            continue
        path = folder / part_name(chunk.number)
        try:
            arrays = _arrays(_read(path))
            lost = {name: text for name, digest in arrays.items() if (text := wrong(folder, name, digest))}
            problem = next(iter(lost.values()), None)
        except (pa.ArrowException, OSError, ValueError) as error:
            lost, problem = {}, first_line(error)
        if problem is not None:
            with writing(folder):
                aside = set_aside(path, folder)
                for name in lost:
                    if os.path.lexists(folder / name):
                        set_aside(folder / name, folder)
            tell(f"{path}: damaged: {problem}; it was moved to {aside.name} and is made again")


def collect(folder: Path, every: list[Chunk]) -> tuple[int, dict[str, str]]:
    """Streams all parts, in the order of the videos, into segments.parquet.

    Returns:
        The number of segments, and the error of each video that failed. The parts of failed videos are removed, so
        that the same command tries them again and nothing else.

    Raises:
        DamagedError: a part cannot be read, or lacks an array.
    """
    failures: dict[str, str] = {}
    rows = 0
    with pq.ParquetWriter(folder / "segments.parquet", SCHEMA) as writer:
        for chunk in every:
            path = folder / part_name(chunk.number)
            try:
                table = _read(path)
            except (pa.ArrowException, OSError) as error:
                raise damaged(path, first_line(error), folder) from error
            for name, digest in _arrays(table).items():
                if problem := wrong(folder, name, digest.split(" ")[0]):
                    raise damaged(path, problem, folder)
            bad = table.column("error").is_valid()
            if bad.to_numpy(zero_copy_only=False).any():
                failures |= {r["video_id"]: r["error"] for r in table.filter(bad).to_pylist()}
                path.unlink()
                continue
            rows += table.num_rows
            writer.write_table(table.select(SCHEMA.names))
    return rows, failures


def _read(path: Path) -> pa.Table:
    table = pq.read_table(path, page_checksum_verification=True)
    return table.cast(PART_SCHEMA.with_metadata(table.schema.metadata))


def _arrays(part: pa.Table) -> dict[str, str]:
    found: dict[str, str] = json.loads((part.schema.metadata or {}).get(ARRAYS, b"{}"))
    return found


def _describe(error: Exception) -> str:
    if isinstance(error, DataError):
        return str(error)
    last = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__}: {error} ({Path(last.filename).name}:{last.lineno})"
