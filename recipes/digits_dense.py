"""Dense training on scikit-learn's digits in the loop, and with the schedule, of the searches."""

from supermask import Digits, Recipe, RunOptions, Training, Validation, main
from supermask.recipes._experiment import trained
from supermask.recipes._settings import DIGITS, NO_VALIDATION, Mlp


def recipe(
    data: Digits = Digits(),
    network: Mlp = Mlp(),
    training: Training = DIGITS,
    run: RunOptions = RunOptions(),
    validation: Validation = NO_VALIDATION,
) -> Recipe:
    """Train all weights for the epochs of one cycle.

    Args:
        network: hidden layers, or another network by its name.
    """
    return trained("digits_dense", data, network, training, run, validation)


if __name__ == "__main__":
    main(recipe)
