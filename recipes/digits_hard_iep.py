"""Hard iEP on scikit-learn's digits: the rate is halved for five cycles, down to 3.1 % remaining."""

from recipes._digits import CYCLES, FINAL, TRAINING, network
from supermask.cycles import down_to, hard_iep
from supermask.data import Digits
from supermask.recipe import Conversion, Recipe, RunOptions, main
from supermask.stages import Export, search
from supermask.train import Training


def recipe(
    data: Digits = Digits(),
    training: Training = TRAINING,
    conversion: Conversion = Conversion(),
    run: RunOptions = RunOptions(),
    final: float = FINAL,
    cycles: int = CYCLES,
) -> Recipe:
    """Hard iEP with learning-rate rewinding: remaining final^(i / cycles) in cycle i.

    Args:
        final: fraction of the edges kept in the last cycle.
        cycles: number of cycles.
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
