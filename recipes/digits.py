"""Any method on scikit-learn's digits: `python -m recipes.digits soft-iep`."""

from supermask import Conversion, Digits, Method, Recipe, RunOptions, Training, Validation, main
from supermask.recipes._experiment import methods, searched, trained
from supermask.recipes._settings import DIGITS, DIGITS_METHODS, NO_VALIDATION, Mlp

METHODS = methods(DIGITS_METHODS)


def recipe(
    name: str,
    method: Method,
    data: Digits = Digits(),
    network: Mlp = Mlp(),
    training: Training = DIGITS,
    conversion: Conversion = Conversion(),
    run: RunOptions = RunOptions(),
    validation: Validation = NO_VALIDATION,
) -> Recipe:
    """A search by a method, and its ticket.

    Args:
        network: hidden layers, or another network by its name.
    """
    return searched(f"digits_{name}", method, data, network, training, conversion, run, validation)


def dense(
    data: Digits = Digits(),
    network: Mlp = Mlp(),
    training: Training = DIGITS,
    run: RunOptions = RunOptions(),
    validation: Validation = NO_VALIDATION,
) -> Recipe:
    """All weights are trained, in the loop and with the schedule of the searches.

    Args:
        network: hidden layers, or another network by its name.
    """
    return trained("digits_dense", data, network, training, run, validation)


if __name__ == "__main__":
    main(recipe, methods=METHODS, dense=dense)
