"""Edge-popup on ImageNet with the settings of the soft iEP paper: one cycle at one rate."""

from supermask import EP, Conversion, ImageFolder, Network, Recipe, RunOptions, Training, Validation, main
from supermask.recipes._experiment import searched
from supermask.recipes._settings import IMAGENET, NO_VALIDATION, WIDE_RESNET50


def recipe(
    data: ImageFolder = ImageFolder(),
    network: Network = WIDE_RESNET50,
    training: Training = IMAGENET,
    conversion: Conversion = Conversion(),
    run: RunOptions = RunOptions(),
    validation: Validation = NO_VALIDATION,
    remaining: float = 0.3,
) -> Recipe:
    """Edge-popup for the epochs of one cycle.

    Args:
        network: architecture; the paper uses torchvision/resnet50, torchvision/resnet101 and
            torchvision/wide_resnet50_2.
        remaining: fraction of the edges kept.
    """
    method = EP(remaining=remaining)
    return searched("imagenet_ep", method, data, network, training, conversion, run, validation)


if __name__ == "__main__":
    main(recipe)
