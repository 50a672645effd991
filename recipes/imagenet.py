"""Any method on ImageNet: `python -m recipes.imagenet soft-iep`.

Settings are the soft iEP paper's; IteRand's own schedule is --training.epochs 105 --training.tail 5 --training.lr 0.1
--training.momentum 0.9 --training.weight-decay 1e-4 --data.batch 128 --data.hold-out 0.01.
"""

from supermask import Conversion, ImageFolder, Method, Network, Recipe, RunOptions, Training, Validation, main
from supermask.recipes._experiment import methods, searched, trained
from supermask.recipes._settings import IMAGENET, IMAGENET_METHODS, NO_VALIDATION, WIDE_RESNET50

METHODS = methods(IMAGENET_METHODS)


def recipe(
    name: str,
    method: Method,
    data: ImageFolder = ImageFolder(),
    network: Network = WIDE_RESNET50,
    training: Training = IMAGENET,
    conversion: Conversion = Conversion(),
    run: RunOptions = RunOptions(),
    validation: Validation = NO_VALIDATION,
) -> Recipe:
    """A search by a method, and its ticket.

    Args:
        network: architecture; the paper uses torchvision/resnet50, torchvision/resnet101 and
            torchvision/wide_resnet50_2.
    """
    return searched(f"imagenet_{name}", method, data, network, training, conversion, run, validation)


def dense(
    data: ImageFolder = ImageFolder(),
    network: Network = WIDE_RESNET50,
    training: Training = IMAGENET,
    run: RunOptions = RunOptions(),
    validation: Validation = NO_VALIDATION,
) -> Recipe:
    """All weights are trained, in the loop and with the schedule of the searches.

    Args:
        network: architecture; the paper uses torchvision/resnet50, torchvision/resnet101 and
            torchvision/wide_resnet50_2.
    """
    return trained("imagenet_dense", data, network, training, run, validation)


if __name__ == "__main__":
    main(recipe, methods=METHODS, dense=dense)
