"""Any method on scikit-learn's digits drawn at 32x32: `python -m recipes.digits32 soft-iep`.

Settings are the soft iEP paper's for CIFAR-10, whose images these are as many and as large as; there is no download.
"""

from supermask import Conversion, Digits32, Method, Network, Recipe, RunOptions, Training, Validation, main
from supermask.recipes._experiment import methods, searched, trained
from supermask.recipes._settings import NO_VALIDATION, RESNET18, SMALL_IMAGES, SMALL_IMAGES_METHODS

METHODS = methods(SMALL_IMAGES_METHODS)


def recipe(
    name: str,
    method: Method,
    data: Digits32 = Digits32(),
    network: Network = RESNET18,
    training: Training = SMALL_IMAGES,
    conversion: Conversion = Conversion(),
    run: RunOptions = RunOptions(),
    validation: Validation = NO_VALIDATION,
) -> Recipe:
    """A search by a method, and its ticket.

    Args:
        network: architecture.
    """
    return searched(f"digits32_{name}", method, data, network, training, conversion, run, validation)


def dense(
    data: Digits32 = Digits32(),
    network: Network = RESNET18,
    training: Training = SMALL_IMAGES,
    run: RunOptions = RunOptions(),
    validation: Validation = NO_VALIDATION,
) -> Recipe:
    """All weights are trained, in the loop and with the schedule of the searches.

    Args:
        network: architecture.
    """
    return trained("digits32_dense", data, network, training, run, validation)


if __name__ == "__main__":
    main(recipe, methods=METHODS, dense=dense)
