"""The commands of `tad` by what is typed after it."""

from __future__ import annotations

from collections.abc import Iterator

import click


def every_command(group: click.Group, above: str = "") -> Iterator[tuple[str, click.Command]]:
    """Those of groups, too."""
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        yield f"{above}{name}", command
        if isinstance(command, click.Group):
            yield from every_command(command, f"{above}{name} ")
