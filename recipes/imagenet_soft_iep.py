"""Soft iEP on ImageNet with the soft iEP paper's settings: three cycles down to 30 % remaining."""

from supermask.cycles import down_to, soft_iep
from supermask.data import ImageFolder
from supermask.networks import Architecture
from supermask.recipe import Conversion, Recipe, RunOptions, main
from supermask.stages import Export, search
from supermask.train import Training


def recipe(
    data: ImageFolder = ImageFolder(),
    training: Training = Training(epochs=100, lr=0.3, momentum=0.875, weight_decay=3e-5, warmup=5),
    conversion: Conversion = Conversion(),
    run: RunOptions = RunOptions(),
    network: str = "wide_resnet50_2",
    final: float = 0.3,
    cycles: int = 3,
) -> Recipe:
    """Soft iEP with learning-rate rewinding on any folder in torchvision's ImageFolder layout (--data.root DIR).

    Args:
        network: torchvision classification network; the paper uses resnet50, resnet101 and wide_resnet50_2.
        final: fraction of the edges kept in the last cycle.
        cycles: number of cycles.
    """
    return Recipe(
        name="imagenet_soft_iep",
        data=data,
        network=lambda classes: Architecture(name=f"torchvision/{network}", arguments={"num_classes": classes}),
        training=training,
        conversion=conversion,
        stages=(*search(soft_iep(down_to(final, cycles))), Export()),
        run=run,
    )


if __name__ == "__main__":
    main(recipe)
