"""Hard iEP on ImageNet with the settings of the soft iEP paper: three cycles down to 30 % remaining."""

from supermask import Conversion, Export, ImageFolder, Recipe, RunOptions, Training, down_to, hard_iep, main, search
from supermask.recipes._settings import IMAGENET, WIDE_RESNET50, Network


def recipe(
    data: ImageFolder = ImageFolder(),
    network: Network = WIDE_RESNET50,
    training: Training = IMAGENET,
    conversion: Conversion = Conversion(),
    run: RunOptions = RunOptions(),
    final: float = 0.3,
    cycles: int = 3,
) -> Recipe:
    """Hard iEP with learning-rate rewinding.

    Args:
        network: architecture; the paper uses torchvision/resnet50, torchvision/resnet101 and
            torchvision/wide_resnet50_2.
        final: fraction of the edges kept in the last cycle.
        cycles: number of cycles; remaining is final^(i / cycles) in cycle i.
    """
    return Recipe(
        name="imagenet_hard_iep",
        data=data,
        network=network,
        training=training,
        conversion=conversion,
        stages=(*search(hard_iep(down_to(final, cycles))), Export()),
        run=run,
    )


if __name__ == "__main__":
    main(recipe)
