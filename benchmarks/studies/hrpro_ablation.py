"""HR-Pro's ablation (Table 3 of the paper) on a dataset: `python -m benchmarks.studies.hrpro_ablation --data DIR`.

Every row is one combination of the parts of both stages, trained with each seed; the test videos are read once, after
the last epoch of each. Stages are shared between rows and kept in the store, so it can be stopped and run again.
The paper does not say what supervises its rows without reliable proposals (RP): here the best suppressed proposals of
each class, as many as the class has points in the video, wherever the points are.
"""

from __future__ import annotations

from functools import partial

from benchmarks.studies import ablation
from benchmarks.studies.ablation import Row
from distributed.engine.engine import Engine
from tad.recipe.recipe import load_recipe
from tad.recipe.rounds import Rounds

FIRST = ("rounds=0",)
CONTRAST = ("proposer.training.attention_layers=0",)
BASE = (*CONTRAST, "proposer.training.contrast_weight=0.0")
SCORE = ("detector.training.regression_weight=0.0", "detector.decode.keep=original")
REGRESSION = ("detector.training.completeness_weight=0.0", "detector.decode.completeness_weight=0.0")
NO_NP = ("detector.negatives.share=0.0",)
NO_RP = ("labeler.method=proposals", "labeler.count=points")

ROWS = [
    Row("base", "hrpro-small", BASE + FIRST, 49.4),
    Row("+ contrast", "hrpro-small", CONTRAST + FIRST, 51.5),
    Row("+ attention", "hrpro-small", FIRST, 54.7),
    Row("+ attention, two blocks", "hrpro-small", ("proposer.training.attention_layers=2", *FIRST)),
    Row("regression", "hrpro-small", REGRESSION + NO_NP + NO_RP, 56.1),
    Row("score", "hrpro-small", SCORE + NO_NP + NO_RP, 57.1),
    Row("score, regression", "hrpro-small", NO_NP + NO_RP, 57.8),
    Row("regression, RP", "hrpro-small", REGRESSION + NO_NP, 56.8),
    Row("score, RP", "hrpro-small", SCORE + NO_NP, 58.1),
    Row("score, regression, RP", "hrpro-small", NO_NP, 59.1),
    Row("score, regression, RP, NP", "hrpro-small", (), 60.3),
    Row("the same on base", "hrpro-small", BASE, 53.9),
    Row("the same on base + contrast", "hrpro-small", CONTRAST, 56.2),
    Row("faithful, stage 1", "hrpro-released", FIRST),
    Row("faithful, stage 2", "hrpro-released"),
]


def rounds_of(row: Row, engine: Engine, epochs: int, second_epochs: int) -> Rounds:
    """A row's rounds, with the schedule of the command."""
    changes = [*row.changes, f"proposer.training.epochs={epochs}", f"detector.training.epochs={second_epochs}"]
    if row.recipe == "hrpro-released" and engine.data.manifest.grid.dim < 1024:
        # The published rates are for a width of 2048; narrow features need larger steps.
        changes += ["proposer.training.lr=1e-3", "detector.training.lr=5e-4"]
    return Rounds(load_recipe(row.recipe, changes), engine)


def main() -> None:
    parser = ablation.arguments(__doc__.splitlines()[0], "runs/hrpro-ablation")  # type: ignore[union-attr]
    parser.add_argument("--epochs", type=int, default=20, help="of stage 1")
    parser.add_argument("--second-epochs", type=int, default=12, help="of stage 2")
    options = parser.parse_args()
    ablation.run(ROWS, partial(rounds_of, epochs=options.epochs, second_epochs=options.second_epochs), options)


if __name__ == "__main__":
    main()
