"""What the code imports, and which layer a module is of: for the tests of the structure that the docs promise."""

from __future__ import annotations

import ast
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("tad", "distributed", "search_spaces")

LAYERS = {
    "data": (
        "tad.data",
        "tad.files",
        "tad.errors",
        "tad.bounds",
        "tad.options",
        "tad.ranges",
        "tad.words",
        "tad.wrong_file",
    ),
    "ops": ("tad.ops",),
    "stages": ("tad.stages", "tad.methods.roles"),
    "common": ("tad.methods.common",),
    "bases": ("tad.methods.snippet", "tad.methods.actionformer", "tad.methods.bmn"),
    "papers": ("tad.methods.hrpro", "tad.methods.potloc", "tad.methods.gaufuse"),
    "labelers": ("tad.methods.pser", "tad.methods.points", "tad.methods.controls", "tad.methods.file"),
    "mixed": ("tad.methods.mixed",),
    "apl": ("tad.methods.apl",),
    "recipe": ("tad.recipe", "tad.recipes"),
    "judging": ("tad.evaluation", "tad.selection", "tad.report"),
    "prepare": ("tad.prepare",),
    "spaces": ("search_spaces",),
    "distributed": ("distributed",),
    "commands": ("tad.commands", "tad.cli", "tad.__main__"),
}
"""From low to high: a module may import from its own layer and from lower ones. The package `tad` itself is empty."""

EMPTY = ("tad", "tad.methods")
"""Packages that hold nothing but other packages."""

TRAINING = ("ops", "stages", "common", "bases", "papers", "labelers", "mixed", "apl")
"""Layers whose code trains, and so must never get to read ground truth."""
GROUND_TRUTH = "tad.evaluation.ground_truth"


def layer(module: str) -> str | None:
    """The layer of a module of this project, or None if it has none."""
    return next((x for x, names in LAYERS.items() if any((module + ".").startswith(n + ".") for n in names)), None)


def files(root: Path = ROOT) -> dict[str, Path]:
    """The project's files by module name."""
    found = {}
    for path in sorted(f for package in PACKAGES for f in (root / package).rglob("*.py")):
        parts = path.relative_to(root).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def imports(module: str, path: Path) -> set[str]:
    """All that a module imports, at its top or in functions, and names that it writes as text (for importlib)."""
    found = set()
    package = module.split(".") if path.name == "__init__.py" else module.split(".")[:-1]
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else []
            base = ".".join([*above, *(node.module.split(".") if node.module else [])])
            found |= {base} | {f"{base}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value.startswith(PACKAGES):
            found.add(node.value)
    return found


def graph(modules: Mapping[str, Path]) -> dict[str, set[str]]:
    """The project's modules that each of them imports, with the packages around these."""
    edges = {}
    for module, path in modules.items():
        names = imports(module, path)
        around = {".".join(name.split(".")[:n]) for name in names for n in range(1, name.count(".") + 2)}
        edges[module] = (around & modules.keys()) - {module}
    return edges


def leak(edges: Mapping[str, set[str]], module: str, to: str = GROUND_TRUTH) -> Sequence[str]:
    """The shortest chain of imports from a module to another one; empty if there is none."""
    before: dict[str, str] = {module: ""}
    queue = [module]
    for now in queue:
        if now == to:
            chain = [now]
            while before[chain[0]]:
                chain.insert(0, before[chain[0]])
            return chain
        for following in sorted(edges.get(now, ())):
            if following not in before:
                before[following] = now
                queue.append(following)
    return []


def leaks(root: Path = ROOT) -> list[str]:
    """How each module that trains could come to read ground truth."""
    modules = files(root)
    edges = graph(modules)
    chains = [leak(edges, module) for module in modules if layer(module) in TRAINING]
    return [" imports ".join(chain) for chain in chains if chain]


def strays(root: Path = ROOT) -> list[str]:
    """Modules without a layer."""
    return [module for module in files(root) if module not in EMPTY and layer(module) is None]


def circles(root: Path = ROOT) -> list[list[str]]:
    """Folders that import each other, directly or through others."""
    modules = files(root)
    room = {}
    for module, path in modules.items():
        above = module.rpartition(".")[0]
        room[module] = module if path.name == "__init__.py" or above in EMPTY else above
    edges: dict[str, set[str]] = {place: set() for place in room.values()}
    for module, found in graph(modules).items():
        edges[room[module]] |= {room[other] for other in found if modules[other].name != "__init__.py"} - {room[module]}
    reach = {place: reached(edges, place) for place in edges}
    together = {tuple(sorted(b for b in reach[a] if a in reach[b])) for a in edges if a in reach[a]}
    return sorted(map(list, together))


def reached(edges: Mapping[str, set[str]], place: str) -> set[str]:
    """All that can be got to, along one arrow at least."""
    found: set[str] = set()
    queue = list(edges[place])
    while queue:
        if (now := queue.pop()) not in found:
            found.add(now)
            queue += edges[now]
    return found
