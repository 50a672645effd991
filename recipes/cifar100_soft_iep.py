"""Soft iEP on CIFAR-100 with the settings of the soft iEP paper: 15 cycles down to 3.5 % remaining."""

from supermask import CIFAR100, IEP, Conversion, Network, Recipe, RunOptions, Training, Validation, main
from supermask.recipes._experiment import searched
from supermask.recipes._settings import NO_VALIDATION, RESNET18, SMALL_IMAGES


def recipe(
    data: CIFAR100 = CIFAR100(),
    network: Network = RESNET18,
    training: Training = SMALL_IMAGES,
    conversion: Conversion = Conversion(),
    run: RunOptions = RunOptions(),
    validation: Validation = NO_VALIDATION,
    p: float = 0.2,
    cycles: int = 15,
) -> Recipe:
    """Soft iEP with learning-rate rewinding.

    Args:
        network: architecture.
        p: shrinkage rate; remaining is (1 - p)^i in cycle i.
        cycles: number of cycles.
    """
    method = IEP(p=p, cycles=cycles)
    return searched("cifar100_soft_iep", method, data, network, training, conversion, run, validation)


if __name__ == "__main__":
    main(recipe)
