"""Edge-popup on scikit-learn's digits: one cycle at one rate."""

from supermask.data.digits import Digits
from supermask.methods.edge_popup import ep
from supermask.recipes._settings import DIGITS, Mlp
from supermask.runs.main import main
from supermask.runs.options import Conversion, RunOptions
from supermask.runs.recipe import Recipe
from supermask.runs.stages import Export, search
from supermask.training.training import Training


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
