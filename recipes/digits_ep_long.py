"""Edge-popup on scikit-learn's digits for as many epochs as the five cycles of iEP take, in one schedule."""

from supermask import Conversion, Digits, Export, Recipe, RunOptions, Training, ep, main, search
from supermask.recipes._settings import DIGITS, Mlp


def recipe(
    data: Digits = Digits(),
    network: Mlp = Mlp(),
    training: Training = DIGITS,
    conversion: Conversion = Conversion(),
    run: RunOptions = RunOptions(),
    remaining: float = 1 / 32,
    cycles: int = 5,
) -> Recipe:
    """Edge-popup at the compute of iEP. Its best learning rate is lower: --training.lr 0.03.

    Args:
        network: hidden layers.
        remaining: fraction of the edges kept.
        cycles: number of cycles whose epochs it takes.
    """
    return Recipe(
        name="digits_ep_long",
        data=data,
        network=network,
        training=training,
        conversion=conversion,
        stages=(*search(ep(remaining, length=cycles)), Export()),
        run=run,
    )


if __name__ == "__main__":
    main(recipe)
