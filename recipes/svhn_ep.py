"""Edge-popup on SVHN with the settings of the soft iEP paper: one cycle at one rate."""

from supermask import EP, SVHN, Conversion, Network, Recipe, RunOptions, Training, Validation, main
from supermask.recipes._experiment import searched
from supermask.recipes._settings import NO_VALIDATION, RESNET18, SMALL_IMAGES


def recipe(
    data: SVHN = SVHN(),
    network: Network = RESNET18,
    training: Training = SMALL_IMAGES,
    conversion: Conversion = Conversion(),
    run: RunOptions = RunOptions(),
    validation: Validation = NO_VALIDATION,
    remaining: float = 0.3,
) -> Recipe:
    """Edge-popup for the epochs of one cycle.

    Args:
        network: architecture.
        remaining: fraction of the edges kept.
    """
    method = EP(remaining=remaining)
    return searched("svhn_ep", method, data, network, training, conversion, run, validation)


if __name__ == "__main__":
    main(recipe)
