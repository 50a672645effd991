"""Dense training on scikit-learn's digits in the loop, and with the schedule, of the searches."""

from supermask import Digits, Evaluate, Recipe, RunOptions, Train, Training, main
from supermask.recipes._settings import DIGITS, Mlp


def recipe(
    data: Digits = Digits(),
    network: Mlp = Mlp(),
    training: Training = DIGITS,
    run: RunOptions = RunOptions(),
) -> Recipe:
    """Train all weights for the epochs of one cycle.

    Args:
        network: hidden layers.
    """
    return Recipe(
        name="digits_dense",
        data=data,
        network=network,
        training=training,
        stages=(Train(), Evaluate(recalibrate=False)),
        run=run,
    )


if __name__ == "__main__":
    main(recipe)
