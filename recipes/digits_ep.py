"""Edge-popup on scikit-learn's digits: one cycle at one rate."""

from supermask import Conversion, Digits, Export, Recipe, RunOptions, Training, ep, main, search
from supermask.recipes._settings import DIGITS, Mlp


def recipe(
    data: Digits = Digits(),
    network: Mlp = Mlp(),
    training: Training = DIGITS,
    conversion: Conversion = Conversion(),
    run: RunOptions = RunOptions(),
    remaining: float = 1 / 32,
) -> Recipe:
    """Edge-popup for the epochs of one cycle.

    Args:
        network: hidden layers.
        remaining: fraction of the edges kept.
    """
    return Recipe(
        name="digits_ep",
        data=data,
        network=network,
        training=training,
        conversion=conversion,
        stages=(*search(ep(remaining)), Export()),
        run=run,
    )


if __name__ == "__main__":
    main(recipe)
