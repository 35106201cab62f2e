"""`tad spaces` and `tad spaces show`."""

from __future__ import annotations

import pytest
from click.testing import CliRunner

from search_spaces.load import families
from tad.cli import tad
from tad.errors import ConfigError


def shown(*arguments: str) -> str:
    result = CliRunner().invoke(tad, ["spaces", *arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def rows(text: str) -> dict[str, list[str]]:
    """The cells of the table by key; columns are two blanks or more apart."""
    lines = [[cell.strip() for cell in line.split("  ") if cell.strip()] for line in text.splitlines()]
    return {cells[0]: cells[1:] for cells in lines if len(cells) == 5}


def test_families_are_listed():
    listed = shown().splitlines()
    assert [line.split()[0] for line in listed] == list(families())
    assert "thresholds     Thresholds: video classes, curves" in shown()


def test_a_space_is_a_table():
    table = rows(shown("show", "perturbation", "--recipe", "pser", "--set", "labeler.refine=bag"))
    assert table["key"] == ["default", "range", "stage", "why"]
    assert table["labeler.merge.rank_power"][:3] == ["4", "0 to 8; only if labeler.refine is bag", "labels"]
    assert table["labeler.bag.shifts"][:3] == [
        "[0, -0.2, 0.2]",
        "reach 0.05 to 0.4; 1 to 3 on either side of 0; only if labeler.refine is bag",
        "heads",
    ]
    assert table["labeler.merge.ties"][1] == "all, first; only if labeler.merge.top_k is 4 or 8 or 12"
    assert all(cells[3] for cells in table.values())


def test_defaults_are_those_of_the_recipe():
    training = rows(shown("show", "training", "--recipe", "thumos14-small", "--set", "detector.training.epochs=30"))
    assert training["detector.training.epochs"][0] == "30"
    assert training["detector.training.lr"][0] == "null (for the sampler 0.0004)"
    text = shown("show", "perturbation:labels,rounds", "--recipe", "pser", "--set", "labeler.refine=bag")
    assert set(rows(text)) >= {"labeler.merge.top_k", "rounds"} and "labeler.bag.scales" not in text
    assert "10 parameters by the first stage that a change runs again: 7 labels, 3 round" in text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["pertubation"], "no space 'pertubation'; did you mean perturbation?"),
        (["perturbation", "--recipe", "potloc"], "nothing to tune: the recipe has proposer snippet, labeler potloc"),
        (["perturbation", "--recipe", "psr"], "no recipe 'psr'; did you mean pser?"),
    ],
)
def test_mistakes_are_explained(arguments, message):
    with pytest.raises(ConfigError) as caught:
        shown("show", *arguments)
    assert message in str(caught.value)
