"""Imports the official files of ActivityNet (1.2, 1.3) and HACS Segments, as they are published.

{"version", "taxonomy": [{"nodeName", "parentName", ...}], "database": {video: {"duration", "subset", "annotations":
[{"segment": [start, end], "label"}], ...}}}; subsets training, validation and testing, the last without annotations.
Classes have the order of the taxonomy. The files hold no frame rates: the user says how the features were made.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Unpack

from tad.data.class_list import read_classes
from tad.data.dataset import Role
from tad.errors import DataError, few
from tad.files import name_of, read_json
from tad.prepare.importer import Import, Imported, Options
from tad.prepare.opentad_files import annotation_files, block_list, default_roles
from tad.prepare.published import own_clock


def import_activitynet(
    src: Path,
    out: Path,
    *,
    annotations: str | None = None,
    classes: Path | None = None,
    block: str | None = None,
    subsets: Mapping[str, Role] | None = None,
    **options: Unpack[Options],
) -> Imported:
    """Writes the dataset folder `out` from the official annotation file in `src`.

    Args:
        annotations: the file, relative to `src`; by default the only one there.
        classes: class list, which gives the order in place of the taxonomy.
        block: list of videos to ignore, relative to `src`; those with the usual names are found.
        subsets: role of each subset; by default training trains and validation tests.
        options: fps native needs fps in the file.

    Raises:
        DataError: lists every problem of the source; nothing is written then.
    """
    job = Import("activitynet", src, out, **options)
    paths = annotation_files(src, () if annotations is None else (annotations,))
    document = read_json(paths[0])
    source = document.get("database") if isinstance(document, dict) else None
    if len(paths) > 1 or not isinstance(source, dict) or not source:
        raise DataError(f'{paths[0]}: expected {{"taxonomy": [...], "database": {{video: ...}}}}')
    job.where = paths[0]
    roles = dict(subsets) if subsets is not None else default_roles(source, paths[0])
    for video, entry in job.in_roles(source, roles).items():
        job.add(video, entry, str(entry.get("subset")).strip() if isinstance(entry, dict) else "", own_clock)
    names, order = _classes(document, classes, job)
    if job.needs_rates and not all("fps" in entry for entry in job.database.values()):
        job.problems.append(
            "the file tells no frame rates; say how the features were made: with --length ROWS if all videos were "
            "resized to as many rows, else with --fps, --stride and --window"
        )
    folder = job.folder()
    blocked = block_list(src, block, [src, src / "annotations", *([folder] if folder is not None else [])])
    listed = {video.removeprefix("v_") for video in blocked.names} | set(blocked.names)
    job.tell_untimed(listed)
    job.refuse()

    ignored = [video for video in job.database if video in listed]
    found = job.find(folder, ignored)
    job.notes += blocked.notes(ignored)
    return job.write(names, order, roles, found, ignored=ignored, read=[classes])


def _classes(document: Mapping[str, Any], path: Path | None, job: Import) -> tuple[list[str], str]:
    """The class names, and where their order comes from: a list, else the leaves of the taxonomy, else the alphabet."""
    labels = sorted({row["label"] for entry in job.database.values() for row in entry["annotations"]})
    if path is not None:
        names = [name for _, name in sorted(read_classes(path, by_line=False).items())]
        job.problems += [f"class {label!r} is not in {path}" for label in labels if label not in set(names)]
        return names, str(path)
    nodes = document.get("taxonomy")
    nodes = [n for n in nodes if isinstance(n, dict)] if isinstance(nodes, list) else []
    inner = {name_of(node.get("parentName")) for node in nodes}
    ordered = list(dict.fromkeys(name_of(node.get("nodeName")) for node in nodes))
    names = [node for node in ordered if node not in inner or node in labels]
    beside = [label for label in labels if label not in set(names)]
    if names and beside:
        job.warnings.append(f"{len(beside)} classes are not in the taxonomy and come last: {few(beside)}")
    return names + beside, "the taxonomy" if names else "the alphabet"
