"""`tad spaces`."""

from __future__ import annotations

import click

from tad.commands.say import say
from tad.commands.table import table


@click.group(invoke_without_command=True)
@click.pass_context
def spaces(context: click.Context) -> None:
    """List the search spaces that come with the package."""
    if context.invoked_subcommand is None:
        from search_spaces.load import families

        for name, line in families().items():
            say(f"{name:<14} {line}")


@spaces.command()
@click.argument("names")
@click.option("--recipe", default="pser", show_default=True, help="Recipe name or YAML file.")
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Override an option; may be repeated.")
def show(names: str, recipe: str, overrides: tuple[str, ...]) -> None:
    """Print the parameters of NAMES (families or .py files, separated by commas) for a recipe.

    A .py file is run as code, also here: give only those that you trust.

    The stage is the first that a change runs again; what comes before it is shared by all trials. From dear to cheap:
    proposer, proposals, heads, labels, detector, detections, round. NAME:STAGE leaves out earlier ones, for instance
    perturbation:labels.
    """
    from search_spaces.load import load
    from search_spaces.space import STAGES
    from tad.ranges import shown
    from tad.recipe.recipe import load_recipe, options

    loaded = load_recipe(recipe, overrides)
    space, values = load(names).for_recipe(loaded), options(loaded)
    rows = [("key", "default", "range", "stage", "why")]
    for p in space.parameters:
        default = shown(values[p.key])
        if values[p.key] is None and p.stand_in is not None:
            default = f"null (for the sampler {shown(p.stand_in)})"
        range = str(p.range)
        if p.when is not None:
            key, value = p.when
            wanted = " or ".join(shown(v) for v in (value if isinstance(value, tuple) else (value,)))
            range += f"; only if {key} is {wanted}"
        rows.append((p.key, default, range, p.stage, p.why))
    say("\n".join(table(rows)))
    tiers = ", ".join(f"{n} {stage}" for stage in STAGES if (n := sum(p.stage == stage for p in space.parameters)))
    say(f"\n{len(space.parameters)} parameters by the first stage that a change runs again: {tiers}")
