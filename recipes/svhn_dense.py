"""Dense training on SVHN in the loop, and with the schedule, of the searches."""

from supermask import SVHN, Network, Recipe, RunOptions, Training, Validation, main
from supermask.recipes._experiment import trained
from supermask.recipes._settings import NO_VALIDATION, RESNET18, SMALL_IMAGES


def recipe(
    data: SVHN = SVHN(),
    network: Network = RESNET18,
    training: Training = SMALL_IMAGES,
    run: RunOptions = RunOptions(),
    validation: Validation = NO_VALIDATION,
) -> Recipe:
    """Train all weights for the epochs of one cycle.

    Args:
        network: architecture.
    """
    return trained("svhn_dense", data, network, training, run, validation)


if __name__ == "__main__":
    main(recipe)
