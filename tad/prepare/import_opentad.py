"""Imports the dataset layout of OpenTAD, ActionFormer and MMAction2.

Annotations {"database": {video: {subset, duration, frame or fps, annotations}}}, or MMAction2's files, one for each
subset, {video: {duration_second, duration_frame, annotations}}; a class list (one name per line, optionally after its
index), a folder of feature files, and block lists of videos to ignore. Boundaries only: this layout has no points.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Unpack

from tad.data.dataset import Role
from tad.prepare.feature_files import Features, examine, find_names, folders_of
from tad.prepare.feature_names import Located
from tad.prepare.importer import Import, Imported, Options
from tad.prepare.opentad_files import annotation_files, block_list, class_list, default_roles, read_database
from tad.prepare.published import Entry, own_clock, positive


def import_opentad(
    src: Path,
    out: Path,
    *,
    annotations: str | Sequence[str] = (),
    classes: str | None = None,
    block: str | None = None,
    subsets: Mapping[str, Role] | None = None,
    **options: Unpack[Options],
) -> Imported:
    """Writes the dataset folder `out` from the OpenTAD or ActionFormer layout in `src`.

    Args:
        annotations, classes, block: paths relative to `src`; found in it, in annotations/ and beside the features.
            Without a class list the order is that of the label_id of the annotations, or alphabetical.
        subsets: role of each subset; by default `default_roles`.

    Raises:
        DataError: lists every problem of the source; nothing is written then.
    """
    options.setdefault("stride", 4)
    job = Import("opentad", src, out, **options)
    paths = annotation_files(src, (annotations,) if isinstance(annotations, str) else annotations)
    job.where = paths[0]
    source = read_database(paths, job.problems)
    roles = dict(subsets) if subsets is not None else default_roles(source, paths[0])
    chosen = job.in_roles(source, roles)
    folder = job.folder()
    where = {} if folder is None else dict.fromkeys(chosen, folder)
    located = find_names(where, job.files, job.problems)
    beside = [src, src / "annotations", src / "features", *(path.parent for path in paths), *folders_of(located)]
    places = list(dict.fromkeys(beside))
    blocked = block_list(src, block, places)
    ignored = _blocked(blocked.names, chosen, located)

    def clock(entry: Entry, duration: float) -> tuple[float, float | None]:
        scaled, rate = own_clock(entry, duration)
        if rate is None and entry.get("frame") is not None:
            rate = positive(entry, "frame") / duration
        if job.length is not None and entry.get("feature_frame") is not None:
            # MMAction2's rows share the frames that were read, which are up to a window less than the video's.
            scaled *= min(1.0, positive(entry, "feature_frame") / positive(entry, "frame"))
        if rate is None and job.needs_rates:
            raise ValueError("neither fps nor frame, but the feature grid counts frames of the video")
        return scaled, rate

    for video, entry in chosen.items():
        before = len(job.problems)
        job.add(video, entry, str(entry.get("subset")).strip() if isinstance(entry, dict) else "", clock)
        if video in ignored:
            del job.problems[before:]
    job.tell_untimed(ignored)
    names, order = class_list(src, classes, places, source)
    labels = [row["label"] for entry in job.database.values() for row in entry["annotations"]]
    for label, n in Counter(label for label in labels if label not in set(names)).items():
        job.problems.append(f"class {label!r} of {n} annotations is not in the class list {order}")
    found = Features()
    if not job.problems:
        where = {video: place for video, place in where.items() if video not in job.untimed}
        unread = {*ignored, *job.untimed}
        found = examine(where, located, job.files, job.rows(), job.problems, job.warnings, unread)
    job.notes += blocked.notes(ignored)
    return job.write(names, order, roles, found, ignored=[video for video in ignored if video in job.database])


def _blocked(names: Sequence[str], videos: Collection[str], located: Mapping[Path, Located]) -> list[str]:
    """The videos that a block list means: it may list names of feature files."""
    listed = set(names)
    patterns = [found.pattern for found in located.values() if found.pattern is not None]
    return [
        v for v in videos if v in listed or any(Path(pattern.replace("{id}", v)).stem in listed for pattern in patterns)
    ]
