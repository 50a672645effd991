"""Hard iEP on scikit-learn's digits: the rate is halved for five cycles, down to 3.1 % remaining."""

from supermask import IEP, Conversion, Digits, Recipe, RunOptions, Training, Validation, main
from supermask.recipes._experiment import searched
from supermask.recipes._settings import DIGITS, NO_VALIDATION, Mlp


def recipe(
    data: Digits = Digits(),
    network: Mlp = Mlp(),
    training: Training = DIGITS,
    conversion: Conversion = Conversion(),
    run: RunOptions = RunOptions(),
    validation: Validation = NO_VALIDATION,
    final: float = 1 / 32,
    cycles: int = 5,
) -> Recipe:
    """Hard iEP with learning-rate rewinding.

    Args:
        network: hidden layers, or another network by its name.
        final: fraction of the edges kept in the last cycle.
        cycles: number of cycles; remaining is final^(i / cycles) in cycle i.
    """
    method = IEP(space="survivors", final=final, cycles=cycles)
    return searched("digits_hard_iep", method, data, network, training, conversion, run, validation)


if __name__ == "__main__":
    main(recipe)
