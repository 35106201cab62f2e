"""The reference page of all options, from what stands on their fields.

python -m tad.recipe.reference > docs/reference/options.md
"""

from __future__ import annotations

from tad.options import Declared, Unsaid
from tad.recipe.explain import allowed, default, grouped, paper, summary, worth
from tad.recipe.places import Method, methods

HEAD = """# Options

Every option of every method that comes with the package. This page is made by
`python -m tad.recipe.reference > docs/reference/options.md`; a test keeps it true. Of one recipe,
`tad recipes show NAME --explain` says the same and which values the recipe has.

* **Default**: the value where a recipe says nothing.
* **Paper**: what the published code has; `faithful: true` sets it. A star: another value may be given all the same.
* **Worth searching**: the range that [search spaces](../spaces.md) have, and why.
* Formerly: the name in the last version, which recipes and `--set` may still use in this one.
* The encoder's options are those of a proposer.
"""


def reference() -> str:
    """The page, in Markdown; methods of other packages are not in it."""
    own = [method for method in methods() if method.model.__module__.startswith("tad.")]
    return "\n".join([HEAD, *(line for method in own for line in _section(method))])


def _section(method: Method) -> list[str]:
    title = f"{method.role.capitalize()} `{method.name}`" if method.role else "Recipe"
    lines = [f"## {title}", "", summary(method.model), ""]
    for group, members in grouped(method):
        if group != method.role:
            lines += [f"### `{group}`", "", summary(members[0].owner), ""]
        lines += ["| option | default | paper | takes | meaning | worth searching |", "|---|---|---|---|---|---|"]
        lines += [_row(one) for one in members]
        lines.append("")
    return lines


def _row(one: Declared) -> str:
    star = "*" if one.said.free and one.said.paper is not Unsaid else ""
    cells = [
        f"`{one.key.rpartition('.')[2]}`",
        default(one),
        f"{paper(one)}{star}",
        allowed(one),
        (one.info.description or "") + (f" (formerly `{one.said.formerly}`)" if one.said.formerly else ""),
        worth(one),
    ]
    return "| " + " | ".join(cell.replace("|", "\\|").replace("*", "\\*") for cell in cells) + " |"


if __name__ == "__main__":
    print(reference(), end="")
