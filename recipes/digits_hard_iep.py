"""Hard iEP on scikit-learn's digits: the rate is halved for five cycles, down to 3.1 % remaining."""

from supermask import Conversion, Digits, Export, Recipe, RunOptions, Training, down_to, hard_iep, main, search
from supermask.recipes._settings import DIGITS, Mlp


def recipe(
    data: Digits = Digits(),
    network: Mlp = Mlp(),
    training: Training = DIGITS,
    conversion: Conversion = Conversion(),
    run: RunOptions = RunOptions(),
    final: float = 1 / 32,
    cycles: int = 5,
) -> Recipe:
    """Hard iEP with learning-rate rewinding.

    Args:
        network: hidden layers.
        final: fraction of the edges kept in the last cycle.
        cycles: number of cycles; remaining is final^(i / cycles) in cycle i.
    """
    return Recipe(
        name="digits_hard_iep",
        data=data,
        network=network,
        training=training,
        conversion=conversion,
        stages=(*search(hard_iep(down_to(final, cycles))), Export()),
        run=run,
    )


if __name__ == "__main__":
    main(recipe)
