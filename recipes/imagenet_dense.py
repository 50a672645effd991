"""Dense training on ImageNet in the loop, and with the schedule, of the searches."""

from supermask import ImageFolder, Network, Recipe, RunOptions, Training, Validation, main
from supermask.recipes._experiment import trained
from supermask.recipes._settings import IMAGENET, NO_VALIDATION, WIDE_RESNET50


def recipe(
    data: ImageFolder = ImageFolder(),
    network: Network = WIDE_RESNET50,
    training: Training = IMAGENET,
    run: RunOptions = RunOptions(),
    validation: Validation = NO_VALIDATION,
) -> Recipe:
    """Train all weights for the epochs of one cycle.

    Args:
        network: architecture; the paper uses torchvision/resnet50, torchvision/resnet101 and
            torchvision/wide_resnet50_2.
    """
    return trained("imagenet_dense", data, network, training, run, validation)


if __name__ == "__main__":
    main(recipe)
