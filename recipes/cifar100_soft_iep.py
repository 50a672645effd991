"""Soft iEP on CIFAR-100 with the settings of the soft iEP paper: 15 cycles down to 3.5 % remaining."""

from supermask.data.image_sets import CIFAR100
from supermask.methods.cycles import shrinking
from supermask.methods.iep import soft_iep
from supermask.recipes._settings import RESNET18, SMALL_IMAGES, Network
from supermask.runs.main import main
from supermask.runs.options import Conversion, RunOptions
from supermask.runs.recipe import Recipe
from supermask.runs.stages import Export, search
from supermask.training.training import Training


def recipe(
    data: CIFAR100 = CIFAR100(),
    network: Network = RESNET18,
    training: Training = SMALL_IMAGES,
    conversion: Conversion = Conversion(),
    run: RunOptions = RunOptions(),
    p: float = 0.2,
    cycles: int = 15,
) -> Recipe:
    """Soft iEP with learning-rate rewinding.

    Args:
        network: architecture.
        p: shrinkage rate; remaining is (1 - p)^i in cycle i.
        cycles: number of cycles.
    """
    return Recipe(
        name="cifar100_soft_iep",
        data=data,
        network=network,
        training=training,
        conversion=conversion,
        stages=(*search(soft_iep(shrinking(p, cycles))), Export()),
        run=run,
    )


if __name__ == "__main__":
    main(recipe)
