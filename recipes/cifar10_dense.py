"""Dense training on CIFAR-10 in the loop, and with the schedule, of the searches."""

from supermask import CIFAR10, Evaluate, Recipe, RunOptions, Train, Training, main
from supermask.recipes._settings import RESNET18, SMALL_IMAGES, Network


def recipe(
    data: CIFAR10 = CIFAR10(),
    network: Network = RESNET18,
    training: Training = SMALL_IMAGES,
    run: RunOptions = RunOptions(),
) -> Recipe:
    """Train all weights for the epochs of one cycle.

    Args:
        network: architecture.
    """
    return Recipe(
        name="cifar10_dense",
        data=data,
        network=network,
        training=training,
        stages=(Train(), Evaluate(recalibrate=False)),
        run=run,
    )


if __name__ == "__main__":
    main(recipe)
