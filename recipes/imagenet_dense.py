"""Dense training on ImageNet in the loop, and with the schedule, of the searches."""

from supermask import Evaluate, ImageFolder, Recipe, RunOptions, Train, Training, main
from supermask.recipes._settings import IMAGENET, WIDE_RESNET50, Network


def recipe(
    data: ImageFolder = ImageFolder(),
    network: Network = WIDE_RESNET50,
    training: Training = IMAGENET,
    run: RunOptions = RunOptions(),
) -> Recipe:
    """Train all weights for the epochs of one cycle.

    Args:
        network: architecture; the paper uses torchvision/resnet50, torchvision/resnet101 and
            torchvision/wide_resnet50_2.
    """
    return Recipe(
        name="imagenet_dense",
        data=data,
        network=network,
        training=training,
        stages=(Train(), Evaluate(recalibrate=False)),
        run=run,
    )


if __name__ == "__main__":
    main(recipe)
