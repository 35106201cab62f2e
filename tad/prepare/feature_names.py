"""Which file belongs to which video: by a pattern that the user gives, or by the one that explains the files best.

A pattern is a path below the folder of features. {id} stands for the video, {stream} for rgb and flow, whose arrays are
joined: `v_{id}.npy`, `{stream}/{id}.npz`, `{id}/feature.pt`. A file that holds many videos is a folder of them:
`all.h5/{id}`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from tad.errors import DataError, few
from tad.prepare.feature_arrays import CONTAINERS, KINDS, look, matrix_shape, members

DEPTH = 2
"""Folders below the given one that are looked into."""
SAMPLE = 100
"""Files whose names give patterns to try."""
MOST_CONTAINERS = 8
STREAMS = (("rgb", "flow"), ("RGB", "FLOW"), ("rgb", "opt_flow"), ("rgb", "optical_flow"))
"""What {stream} stands for, in the order in which arrays are joined."""
RGB = re.compile(r"(?<![A-Za-z])(rgb|RGB)(?![A-Za-z])")
CONTAINER = re.compile(rf"(.+?(?:{'|'.join(re.escape(k) for k in CONTAINERS)}))/(.+)", re.IGNORECASE)


class Place(NamedTuple):
    """A file, and the name of a video in it where it holds many."""

    path: Path
    member: str | None


@dataclass
class Located:
    """The files of videos in one folder.

    Attributes:
        files: of each video that has any: one, or rgb and flow.
        pattern: how they are named.
        unused: names of files that belong to no video.
    """

    files: dict[str, tuple[Place, ...]] = field(default_factory=dict)
    pattern: str | None = None
    unused: list[str] = field(default_factory=list)


def locate(folder: Path, videos: Collection[str], pattern: str | None, problems: list[str]) -> Located:
    """The feature files of some videos in a folder.

    Args:
        folder: or one file that holds all videos.
        pattern: None finds it: the one that gives most videos a file.
        problems: what is wrong is appended: a pattern that cannot be, several that explain as much, files of which none
            fits a video, a stream without the other.
    """
    names = {folder.name} if folder.is_file() else set(_names(folder))
    folder = folder.parent if folder.is_file() else folder
    if pattern is not None:
        if (wrong := _wrong(pattern)) is not None:
            problems.append(wrong)
            return Located()
        names |= _members_of(folder, {m[1] for m in [CONTAINER.fullmatch(pattern)] if m}, problems)
        located = _located(folder, videos, pattern, names, problems, given=True)
        if videos and not located.files and not problems:
            called = few(sorted(videos), 2)
            problems.append(f"{folder}: no video has a file named {pattern}; videos are called {called}")
        return located
    usable = {name for name in names if Path(name).suffix.lower() in KINDS}
    found = _patterns(usable, videos)
    if not found:
        containers = [name for name in sorted(usable) if Path(name).suffix.lower() in CONTAINERS]
        inside = _members_of(folder, containers if len(containers) <= MOST_CONTAINERS else (), problems)
        usable |= inside
        found = _patterns(inside, videos)
    best = _best(folder, found, videos, usable) if found else []
    if len(best) == 1:
        return _located(folder, videos, best[0], usable, problems, given=False)
    if best:
        many = ", ".join(f"{p} ({found[p]} videos)" for p in best[:8])
        problems.append(f"{folder}: several kinds of files fit: {many}; choose one with --feature-pattern")
    else:
        problems += _nothing_fits(folder, names, usable, videos)
    return Located()


def _names(folder: Path, below: str = "", depth: int = DEPTH) -> Iterator[str]:
    """Paths of what lies in a folder and is no folder, relative to it."""
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError as error:
        raise DataError(f"{folder}: cannot be read: {error.strerror}") from None
    for entry in entries:
        if entry.name.startswith("."):
            continue
        if not entry.is_dir():
            yield below + entry.name
        elif depth:
            yield from _names(folder / entry.name, f"{below}{entry.name}/", depth - 1)


def _members_of(folder: Path, containers: Collection[str], problems: list[str]) -> set[str]:
    found: set[str] = set()
    for name in containers:
        if (folder / name).exists():
            try:
                found |= {f"{name}/{member}" for member in members(folder / name)}
            except DataError as error:
                problems.append(str(error))
    return found


def _wrong(pattern: str) -> str | None:
    """Why a given pattern cannot be."""
    left = pattern.replace("{id}", "").replace("{stream}", "")
    if "{id}" not in pattern or "{" in left or "}" in left:
        return f"--feature-pattern {pattern!r}: must hold {{id}}, may hold {{stream}}, and no other braces"
    inner = CONTAINER.fullmatch(pattern)
    if Path(inner[1] if inner else pattern).suffix.lower() not in KINDS:
        return f"--feature-pattern {pattern!r}: must end with a kind of file that can be read: {', '.join(KINDS)}"
    return None


def _patterns(names: Collection[str], videos: Collection[str]) -> dict[str, int]:
    """Patterns that fit, and the number of videos that each gives a file."""
    ordered, ids = sorted(names), set(videos)
    lengths = sorted({len(v) for v in ids} - {0})
    step = max(1, len(ordered) // SAMPLE)
    candidates: set[str] = set()
    for name in ordered[::step]:
        for length in lengths:
            spots: dict[str, list[int]] = {}
            for at in range(len(name) - length + 1):
                if name[at : at + length] in ids and _apart(name, at, at + length):
                    spots.setdefault(name[at : at + length], []).append(at)
            for starts in spots.values():
                candidates |= {_pattern(name, [at], length) for at in starts} | {_pattern(name, starts, length)}
    found = {p: n for p in candidates if (n := sum(p.replace("{id}", v) in names for v in videos))}
    for pattern in list(found):
        for rgb, flow in STREAMS:
            both = RGB.sub("{stream}", pattern) if RGB.search(pattern) else pattern
            other = pattern.replace(rgb, flow)
            if "{stream}" in both and other in found and other != pattern:
                found[both] = max(found[pattern], found[other])
                found.pop(other), found.pop(pattern)
                break
    return found


def _pattern(name: str, starts: Sequence[int], length: int) -> str:
    """A name with {id} in the place of an id that begins at each of `starts`."""
    for at in reversed(starts):
        name = f"{name[:at]}{{id}}{name[at + length :]}"
    return name


def _apart(name: str, begin: int, end: int) -> bool:
    """Whether a video's id stands apart in a file name: not as part of a longer number or word, nor before a number."""
    seams = [(name[begin - 1], name[begin])] if begin else []
    seams += [(name[end], name[end - 1])] if end < len(name) else []
    return not any((o.isdigit() and i.isalnum()) or (o.isalpha() and i.isalpha()) for o, i in seams)


def _best(folder: Path, found: Mapping[str, int], videos: Collection[str], names: Collection[str]) -> list[str]:
    """The patterns that explain most; among several those of matrices, then the plainest name."""
    top = sorted(p for p, n in found.items() if n == max(found.values()))
    if len(top) > 1:
        top = [p for p in top if "{stream}" in p or _is_matrix(folder, p, videos, names)] or top
    for plainest in ([p for p in top if p in {f"{{id}}{kind}" for kind in KINDS}], [p for p in top if p == "{id}.npy"]):
        top = plainest or top
    return top


def _is_matrix(folder: Path, pattern: str, videos: Collection[str], names: Collection[str]) -> bool:
    name = next(n for v in videos if (n := pattern.replace("{id}", v)) in names)
    try:
        place = _place(folder, name)
        return matrix_shape(look(place.path, None, place.member).shape) is not None
    except DataError:
        return True  # which array it is may need --key; that is said later


def _located(
    folder: Path, videos: Collection[str], pattern: str, names: Collection[str], problems: list[str], *, given: bool
) -> Located:
    located, used = Located(pattern=pattern), set()
    streams: Sequence[tuple[str, ...]] = STREAMS if "{stream}" in pattern else (("",),)
    for video in videos:
        sets = [[pattern.replace("{id}", video).replace("{stream}", word) for word in words] for words in streams]
        there = [[name for name in one if name in names or (given and (folder / name).exists())] for one in sets]
        best = max(range(len(sets)), key=lambda i: len(there[i]))  # of equals the first
        wanted, found = sets[best], there[best]
        used |= set(found)
        if 0 < len(found) < len(wanted):
            lacking = next(name for name in wanted if name not in found)
            problems.append(f"video {video}: {folder / found[0]} is there, but {folder / lacking} is missing")
        elif found:
            located.files[video] = tuple(_place(folder, name) for name in found)
    located.unused = sorted(set(names) - used)
    return located


def _place(folder: Path, name: str) -> Place:
    inner = CONTAINER.fullmatch(name)
    if inner is not None and (folder / inner[1]).is_file():
        return Place(folder / inner[1], inner[2])
    return Place(folder / name, None)


def _nothing_fits(folder: Path, names: Collection[str], usable: Collection[str], videos: Collection[str]) -> list[str]:
    """What to say of a folder without a file for any video; nothing of one without files."""
    kinds = sorted({Path(name).suffix for name in names} - {"", ".txt", ".json", ".md", ".yaml"})
    if usable:
        return [
            f"{folder}: {len(usable)} feature files, none named after a video: {few(sorted(usable))}; videos are "
            f"called {few(sorted(videos), 2)}: say where in the names that is with --feature-pattern 'v_{{id}}.npy', "
            "rename the files, or leave them with --features none"
        ]
    if kinds:
        return [
            f"{folder}: no features of a kind that can be read ({', '.join(KINDS)}), but {few(sorted(names))}; "
            "convert them, or leave them with --features none"
        ]
    return []
