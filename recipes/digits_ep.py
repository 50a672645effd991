"""Edge-popup on scikit-learn's digits: one cycle at one rate."""

from recipes._digits import FINAL, TRAINING, network
from supermask.cycles import ep
from supermask.data import Digits
from supermask.recipe import Conversion, Recipe, RunOptions, main
from supermask.stages import Export, search
from supermask.train import Training


def recipe(
    data: Digits = Digits(),
    training: Training = TRAINING,
    conversion: Conversion = Conversion(),
    run: RunOptions = RunOptions(),
    remaining: float = FINAL,
) -> Recipe:
    """Edge-popup for the epochs of one cycle.

    Args:
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
