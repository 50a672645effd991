"""Any method on SVHN: `python -m recipes.svhn soft-iep`.

Settings are the soft iEP paper's; IteRand's paper has --training.weight-decay 5e-4.
"""

from supermask import SVHN, Conversion, Method, Network, Recipe, RunOptions, Training, Validation, main
from supermask.recipes._experiment import methods, searched, trained
from supermask.recipes._settings import NO_VALIDATION, RESNET18, SMALL_IMAGES, SMALL_IMAGES_METHODS

METHODS = methods(SMALL_IMAGES_METHODS)


def recipe(
    name: str,
    method: Method,
    data: SVHN = SVHN(),
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
    return searched(f"svhn_{name}", method, data, network, training, conversion, run, validation)


def dense(
    data: SVHN = SVHN(),
    network: Network = RESNET18,
    training: Training = SMALL_IMAGES,
    run: RunOptions = RunOptions(),
    validation: Validation = NO_VALIDATION,
) -> Recipe:
    """All weights are trained, in the loop and with the schedule of the searches.

    Args:
        network: architecture.
    """
    return trained("svhn_dense", data, network, training, run, validation)


if __name__ == "__main__":
    main(recipe, methods=METHODS, dense=dense)
