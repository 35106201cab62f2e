"""Rounds of self-training: how many, and when they end early."""

from search_spaces.space import Float, Integer, Parameter

MORE = (2, 3, 4)
"""Numbers of rounds between which there is something to compare."""

SPACE = [
    Parameter("rounds", Integer(1, 4), "papers 1; labels hardly change after the third", "round"),
    Parameter(
        "stop.change",
        Float(0.8, 1.0),
        "1: never; agreement of two rounds' labels is .8 even where they still improve",
        "round",
        when=("rounds", MORE),
    ),
    Parameter(
        "stop.score_drop",
        Float(0.01, 1.0, log=True),
        "1: never; a drop of .01 is within the noise of one training",
        "round",
        when=("rounds", MORE),
    ),
]
