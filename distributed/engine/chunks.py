"""A map stage's output while it is being made: one part per chunk of videos, then one file.

A chunk's part is written when its arrays are on the disk, so a part that exists is whole; a killed map resumes with the
chunks that have none. Memory does not grow with the number of videos.
"""

from __future__ import annotations

import json
import math
import os
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from distributed.engine.disk import writing
from distributed.engine.locks import Tell
from distributed.engine.seals import digest_of, wrong
from distributed.engine.unfinished import OUTPUT, Partial, make_folder
from tad.data.arrays import Rows, file_name, index_rows, message, write_index
from tad.data.artifact import damaged, set_aside
from tad.data.segments import SCHEMA, Segments, group_size
from tad.errors import DamagedError, DataError, first_line
from tad.files import whole
from tad.stages import Context, MapStage

CHUNKS = "chunks"
FILES = b"arrays"
"""In the metadata of a part: size and digest of each other file that belongs to it."""
PLACES = b"places"
"""In the metadata of a part: offset and size of each array, by name, in the chunk's file of arrays."""
PART_SCHEMA = SCHEMA.append(pa.field("error", pa.string()))
"""The segments of a chunk's videos; a video that failed has one row with its error and no segment."""
NO_ROWS = PART_SCHEMA.empty_table()


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

    def results(chunk: Chunk) -> Iterator[tuple[pa.Table, dict[str, pa.Buffer]]]:
        """Of each video the rows of the part, and its arrays by name."""
        for video in chunk.videos:
            try:
                result = function(video)
                if isinstance(result, Segments):
                    yield result.table.append_column("error", pa.nulls(len(result), pa.string())), {}
                else:
                    yield NO_ROWS, {f"{key}/{video}": message(array) for key, array in result.items()}
            except DamagedError:
                raise  # no fault of the video
            except Exception as error:
                row = dict.fromkeys(PART_SCHEMA.names) | {"video_id": video, "error": _describe(error)}
                yield pa.Table.from_pylist([row], schema=PART_SCHEMA), {}

    def run(chunk: Chunk, partial: Partial) -> Done:
        folder, part, arrays = partial.folder, part_name(chunk.number), f"{OUTPUT}/{file_name(chunk.number)}"
        tables: list[pa.Table] = []
        places: dict[str, tuple[int, int]] = {}
        with writing(folder):
            with _opened(folder / arrays) if stage.output == "arrays" else nullcontext() as file:
                for table, messages in results(chunk):
                    tables.append(table)
                    for name, content in messages.items():
                        assert file is not None
                        places[name] = (file.tell(), content.size)
                        file.write(content)
            files = {arrays: digest_of(folder / arrays)} if stage.output == "arrays" else {}
            table = pa.concat_tables([t.cast(PART_SCHEMA) for t in tables])
            table = table.replace_schema_metadata({FILES: json.dumps(files), PLACES: json.dumps(places)})
            make_folder((folder / part).parent)
            with whole(folder / part) as temporary:
                pq.write_table(table, temporary, write_page_checksum=True)
        partial.send([*files, part])
        failed = table.num_rows - table.column("error").null_count
        size = sum((folder / name).stat().st_size for name in (*files, part))
        return Done(len(chunk.videos), table.num_rows - failed, failed, size)

    return run


@contextmanager
def _opened(path: Path) -> Iterator[BinaryIO]:
    """A file of arrays to write; it has its name when it is whole."""
    make_folder(path.parent.parent)
    make_folder(path.parent)
    with whole(path) as temporary, temporary.open("wb") as file:
        yield file


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
            files = _noted(_read(path), FILES)
            lost = {name: text for name, digest in files.items() if (text := wrong(folder, name, digest))}
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
    """Streams all parts, in the order of the videos, into segments.parquet and the index of the arrays.

    Returns:
        The number of segments, and the error of each video that failed. The parts of failed videos are removed, so
        that the same command tries them again and nothing else.

    Raises:
        DamagedError: a part cannot be read, or lacks an array.
    """
    failures: dict[str, str] = {}
    rows, index = 0, list[Rows]()
    with pq.ParquetWriter(folder / "segments.parquet", SCHEMA) as writer:
        for chunk in every:
            path = folder / part_name(chunk.number)
            try:
                table = _read(path)
            except (pa.ArrowException, OSError) as error:
                raise damaged(path, first_line(error), folder) from error
            for name, digest in _noted(table, FILES).items():
                if problem := wrong(folder, name, digest.split(" ")[0]):
                    raise damaged(path, problem, folder)
            bad = table.column("error").is_valid()
            if bad.to_numpy(zero_copy_only=False).any():
                failures |= {r["video_id"]: r["error"] for r in table.filter(bad).to_pylist()}
                path.unlink()
                continue
            rows += table.num_rows
            writer.write_table(table.select(SCHEMA.names), row_group_size=group_size(table.num_rows, len(every)))
            if places := _noted(table, PLACES):
                index.append(index_rows(chunk.number, places))
    if index and not failures:
        write_index(folder / OUTPUT, index)
    return rows, failures


def _read(path: Path) -> pa.Table:
    table = pq.read_table(path, page_checksum_verification=True)
    return table.cast(PART_SCHEMA.with_metadata(table.schema.metadata))


def _noted(part: pa.Table, key: bytes) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((part.schema.metadata or {}).get(key, b"{}"))
    return found


def _describe(error: Exception) -> str:
    if isinstance(error, DataError):
        return str(error)
    last = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__}: {error} ({Path(last.filename).name}:{last.lineno})"
