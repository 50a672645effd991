"""Edge-popup on scikit-learn's digits: one cycle at one rate."""

from supermask import EP, Conversion, Digits, Recipe, RunOptions, Training, Validation, main
from supermask.recipes._experiment import searched
from supermask.recipes._settings import DIGITS, NO_VALIDATION, Mlp


def recipe(
    data: Digits = Digits(),
    network: Mlp = Mlp(),
    training: Training = DIGITS,
    conversion: Conversion = Conversion(),
    run: RunOptions = RunOptions(),
    validation: Validation = NO_VALIDATION,
    remaining: float = 1 / 32,
) -> Recipe:
    """Edge-popup for the epochs of one cycle.

    Args:
        network: hidden layers, or another network by its name.
        remaining: fraction of the edges kept.
    """
    method = EP(remaining=remaining)
    return searched("digits_ep", method, data, network, training, conversion, run, validation)


if __name__ == "__main__":
    main(recipe)
