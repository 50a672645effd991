"""Edge-popup on scikit-learn's digits for as many epochs as the five cycles of iEP take, in one schedule."""

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
    cycles: int = 5,
) -> Recipe:
    """Edge-popup at the compute of iEP. Its best learning rate is lower: --training.lr 0.03.

    Args:
        network: hidden layers, or another network by its name.
        remaining: fraction of the edges kept.
        cycles: number of cycles whose epochs it takes.
    """
    method = EP(remaining=remaining, length=cycles)
    return searched("digits_ep_long", method, data, network, training, conversion, run, validation)


if __name__ == "__main__":
    main(recipe)
