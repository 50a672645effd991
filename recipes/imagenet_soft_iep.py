"""Soft iEP on ImageNet with the settings of the soft iEP paper: three cycles down to 30 % remaining."""

from supermask import IEP, Conversion, ImageFolder, Network, Recipe, RunOptions, Training, Validation, main
from supermask.recipes._experiment import searched
from supermask.recipes._settings import IMAGENET, NO_VALIDATION, WIDE_RESNET50


def recipe(
    data: ImageFolder = ImageFolder(),
    network: Network = WIDE_RESNET50,
    training: Training = IMAGENET,
    conversion: Conversion = Conversion(),
    run: RunOptions = RunOptions(),
    validation: Validation = NO_VALIDATION,
    final: float = 0.3,
    cycles: int = 3,
) -> Recipe:
    """Soft iEP with learning-rate rewinding.

    Args:
        network: architecture; the paper uses torchvision/resnet50, torchvision/resnet101 and
            torchvision/wide_resnet50_2.
        final: fraction of the edges kept in the last cycle.
        cycles: number of cycles; remaining is final^(i / cycles) in cycle i.
    """
    method = IEP(final=final, cycles=cycles)
    return searched("imagenet_soft_iep", method, data, network, training, conversion, run, validation)


if __name__ == "__main__":
    main(recipe)
