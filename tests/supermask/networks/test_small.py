"""Networks for small images: structure against torchvision and the literature, searched, and through a ticket."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision import models
from torchvision.models.resnet import Bottleneck, ResNet

from supermask.edges.in_model import searched_edges
from supermask.networks.architecture import Architecture
from supermask.networks.convert import convert
from supermask.tickets.load import load
from supermask.tickets.save import save

# A configuration of each that a test can afford, and the side of its images.
TINY: dict[str, tuple[dict[str, Any], int]] = {
    "conv2": ({"widths": [4, 6], "hidden": 8, "size": 6}, 6),
    "conv4": ({"widths": [4, 4, 6, 6], "hidden": [8, 7], "size": 9, "norm": True}, 9),
    "conv6": ({"widths": [4] * 6, "hidden": [8], "size": 8}, 8),
    "conv8": ({"widths": [4] * 8, "hidden": [], "size": 16}, 16),
    "vgg16_bn": ({"width": 0.125}, 32),
    "resnet18": ({"width": 0.125}, 8),
    "resnext29_32x4d": ({"groups": 4, "width_per_group": 2}, 8),
    "convmixer": ({"dim": 8, "depth": 2, "kernel_size": 3}, 8),
}


def build(name: str, **arguments: Any) -> nn.Sequential:
    network = Architecture(name=name, arguments=arguments).build()
    assert isinstance(network, nn.Sequential)
    return network


def parameters(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


@pytest.mark.parametrize(
    ("name", "arguments", "count"),
    [
        # Convolutions and linear layers are 4.30, 2.42, 2.26 and 5.28 million edges; the rest are biases.
        ("conv2", {}, 4_300_992 + 64 + 64 + 256 + 256 + 10),
        ("conv4", {}, 2_425_024 + 2 * (64 + 128) + 2 * 256 + 10),
        ("conv6", {}, 2_261_184 + 2 * (64 + 128 + 256) + 2 * 256 + 10),
        ("conv8", {}, 5_275_840 + 2 * (64 + 128 + 256 + 512) + 2 * 256 + 10),
        ("conv2", {"norm": True}, 4_300_992 + 2 * (64 + 64 + 256 + 256) + 10),
        # Usually 14,728,266: the convolutions here have no biases, of which there would be 4,224.
        ("vgg16_bn", {}, 14_728_266 - 4_224),
        ("resnet18", {}, 11_173_962),
        ("resnet18", {"num_classes": 100}, 11_173_962 + 90 * 513),
        ("resnet18", {"channels": 1}, 11_173_962 - 2 * 64 * 9),
        # 4,774,218 where the first convolution is 1x1; the paper's is 3x3.
        ("resnext29_32x4d", {}, 4_774_218 + 64 * 3 * 8),
        ("convmixer", {}, 594_186),
    ],
)
def test_parameter_counts(name: str, arguments: dict[str, Any], count: int) -> None:
    assert parameters(Architecture(name=name, arguments=arguments).skeleton()) == count


def test_a_small_conv4() -> None:
    network = build("conv4", channels=1, size=8, widths=[16, 16, 32, 32], hidden=64, norm=True)
    weights = {name: tuple(p.shape) for name, p in network.named_parameters() if p.dim() > 1}
    assert weights == {
        "conv1.weight": (16, 1, 3, 3),
        "conv2.weight": (16, 16, 3, 3),
        "conv3.weight": (32, 16, 3, 3),
        "conv4.weight": (32, 32, 3, 3),
        "fc1.weight": (64, 128),
        "fc2.weight": (10, 64),
    }
    block = [nn.Conv2d, nn.BatchNorm2d, nn.ReLU]
    head = [nn.Flatten, nn.Linear, nn.BatchNorm1d, nn.ReLU, nn.Linear]
    assert [type(m) for m in network] == [*block, *block, nn.MaxPool2d, *block, *block, nn.MaxPool2d, *head]
    plain = build("conv4", channels=1, size=8, widths=[16, 16, 32, 32], hidden=64)
    assert [type(m) for m in plain] == [type(m) for m in network if "Norm" not in type(m).__name__]


@pytest.mark.parametrize(("width", "stem"), [(2, 128), (0.5, 32), (0.33, 21), (1 / 64, 1)])
def test_width_scales_every_layer(width: float, stem: int) -> None:
    for name, factors in (("resnet18", (1, 1, 2, 4, 8)), ("vgg16_bn", (1, 2, 4, 8, 8))):
        skeleton = Architecture(name=name, arguments={"width": width}).skeleton()
        stages = [m for label, m in skeleton.named_children() if label.startswith(("stem", "stage"))]
        outputs = [[m.out_channels for m in stage.modules() if isinstance(m, nn.Conv2d)] for stage in stages]
        assert [set(stage) for stage in outputs] == [{stem * factor} for factor in factors]


def torchvision_resnet18() -> nn.Module:
    network = models.resnet18(num_classes=10)
    network.conv1, network.maxpool = nn.Conv2d(3, 64, 3, padding=1, bias=False), nn.Identity()
    return network


def torchvision_resnext29() -> nn.Module:
    network = ResNet(Bottleneck, [3, 3, 3, 1], groups=32, width_per_group=4)
    network.conv1, network.maxpool = nn.Conv2d(3, 64, 3, padding=1, bias=False), nn.Identity()
    network.layer4, network.fc = nn.Identity(), nn.Linear(1024, 10)
    return network


def torchvision_vgg16() -> nn.Module:
    features = models.vgg16_bn(init_weights=False).features
    for module in features:
        if isinstance(module, nn.Conv2d):
            module.bias = None
    return nn.Sequential(features, nn.Flatten(), nn.Linear(512, 10))


class ReferenceConvMixer(nn.Module):
    """ConvMixer as its paper's equations say, layer by layer."""

    def __init__(self) -> None:
        super().__init__()
        self.convolutions, self.norms = nn.ModuleList([nn.Conv2d(3, 256, 2, stride=2)]), nn.ModuleList()
        for _ in range(8):
            self.convolutions += [nn.Conv2d(256, 256, 5, padding="same", groups=256), nn.Conv2d(256, 256, 1)]
        self.norms.extend(nn.BatchNorm2d(256) for _ in self.convolutions)
        self.fc = nn.Linear(256, 10)

    def forward(self, x: Tensor) -> Tensor:
        for number, (convolution, norm) in enumerate(zip(self.convolutions, self.norms, strict=True)):
            mixed = norm(F.gelu(convolution(x)))
            x = x + mixed if number % 2 else mixed
        logits: Tensor = self.fc(x.mean((2, 3)))
        return logits


@pytest.mark.parametrize(
    ("name", "reference"),
    [
        ("resnet18", torchvision_resnet18),
        ("resnext29_32x4d", torchvision_resnext29),
        ("vgg16_bn", torchvision_vgg16),
        ("convmixer", ReferenceConvMixer),
    ],
)
@pytest.mark.parametrize("training", [True, False])
def test_computes_what_an_independent_network_does(
    name: str, reference: Callable[[], nn.Module], training: bool
) -> None:
    """Weights are carried over in order, by kind of layer, since the two name their layers differently."""
    torch.manual_seed(0)
    network, other = build(name), reference()
    for kind in (nn.Conv2d, nn.BatchNorm2d, nn.Linear):
        ours, theirs = ([m for m in n.modules() if isinstance(m, kind)] for n in (network, other))
        for source, target in zip(ours, theirs, strict=True):
            target.load_state_dict(source.state_dict())
    x = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(network.train(training)(x), other.train(training)(x))


@pytest.mark.parametrize("name", TINY)
@pytest.mark.filterwarnings("ignore::supermask.SparseLayerWarning")
def test_searched(name: str) -> None:
    """All layers are masked, first and last too, and each gets a gradient."""
    arguments, side = TINY[name]
    model = build(name, num_classes=5, channels=2, **arguments)
    dense = [m for m in model.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    convert(model, 3, remaining=0.7).train()
    found = searched_edges(model)
    assert [edges.shape for edges in found.values()] == [tuple(m.weight.shape) for m in dense]
    assert not any(isinstance(m, nn.Conv2d | nn.Linear) for m in model.modules())
    x = torch.randn(4, 2, side, side, generator=torch.Generator().manual_seed(0))
    logits = model(x.contiguous(memory_format=torch.channels_last))
    assert logits.shape == (4, 5)
    logits.square().sum().backward()
    for layer, edges in found.items():
        assert edges.scores.grad is not None, layer
        assert torch.isfinite(edges.scores.grad).all(), layer
        assert (edges.scores.grad != 0).any(), layer


@pytest.mark.parametrize("name", TINY)
@pytest.mark.filterwarnings("ignore::supermask.SparseLayerWarning")
def test_through_a_ticket(name: str, tmp_path: Path) -> None:
    arguments, side = TINY[name]
    architecture = Architecture(name=name, arguments={"num_classes": 5, "channels": 2, **arguments})
    model = convert(architecture.build(), 3, remaining=0.7)
    x = torch.randn(4, 2, side, side)
    model.train()(x)  # batch-norm statistics that the seed does not give
    save(model, tmp_path / "t.safetensors", architecture=architecture)
    with torch.no_grad():
        assert torch.equal(load(tmp_path / "t.safetensors", weights="cached")(x), model.eval()(x))


def test_one_linear_layer_of_conv_networks_fits_the_image() -> None:
    assert build("conv4", size=28, channels=1)(torch.zeros(2, 1, 28, 28)).shape == (2, 10)
    assert build("conv6", size=15)(torch.zeros(2, 3, 15, 15)).shape == (2, 10)
    with pytest.raises(RuntimeError, match="shapes"):
        build("conv4", size=28)(torch.zeros(2, 3, 32, 32))


@pytest.mark.parametrize("name", ["vgg16_bn", "resnet18", "resnext29_32x4d", "convmixer"])
def test_larger_images_are_averaged_over_positions(name: str) -> None:
    arguments, _ = TINY[name]
    assert build(name, **arguments)(torch.zeros(2, 3, 64, 72)).shape == (2, 10)


def test_initial_weights_keep_the_scale_of_activations() -> None:
    """Torch's own lose three orders of magnitude between the images and the last layer of Conv8."""
    torch.manual_seed(0)
    features = build("conv8")[:-1](torch.randn(32, 3, 32, 32))
    assert features.std(dim=0).mean() > 0.05
    conv = build("resnet18").get_submodule("stage4.1.residual.body.conv2").weight  # type: ignore[union-attr]
    assert conv.std().item() == pytest.approx(math.sqrt(2 / (512 * 9)), rel=0.01)  # type: ignore[union-attr,operator]


@pytest.mark.parametrize(
    ("name", "arguments", "said"),
    [
        ("conv4", {"num_classes": 0}, "num_classes=0: expected a positive integer"),
        ("conv4", {"channels": 1.0}, "channels=1.0: expected a positive integer"),
        ("conv4", {"size": 3}, "size=3: 2 poolings halve it, so at least 4"),
        ("conv8", {"size": 8}, "size=8: 4 poolings halve it, so at least 16"),
        ("conv4", {"size": True}, "size=True: expected a positive integer"),
        ("conv4", {"widths": [16, 16]}, "widths=[16, 16]: expected 4, one a convolution"),
        ("conv4", {"widths": 16}, "widths=16: expected a list of positive integers"),
        ("conv4", {"widths": [16, 16, 0, 32]}, "widths=[16, 16, 0, 32]: expected a list of positive integers"),
        ("conv4", {"hidden": [-1]}, "hidden=[-1]: expected a list of positive integers"),
        ("conv4", {"hidden": "64"}, "hidden='64': expected a list of positive integers"),
        ("conv4", {"hidden": [1] * 996}, "1,001 layers: at most 1,000"),
        ("conv4", {"norm": "no"}, "norm='no': expected true or false"),
        ("conv4", {"depth": 6}, "depth"),
        ("conv4", {"width": 2}, "width"),
        ("vgg16_bn", {"num_classes": None}, "num_classes=None: expected a positive integer"),
        ("vgg16_bn", {"width": -1}, "width=-1: expected at least 0.015625"),
        ("resnet18", {"width": 0.001}, "width=0.001: expected at least 0.015625"),
        ("resnet18", {"width": "2"}, "width='2': expected a number"),
        ("resnet18", {"width": True}, "width=True: expected a number"),
        ("resnet18", {"channels": -3}, "channels=-3"),
        ("resnext29_32x4d", {"groups": 0}, "groups=0: expected a positive integer"),
        ("resnext29_32x4d", {"width_per_group": 1.5}, "width_per_group=1.5: expected a positive integer"),
        ("convmixer", {"kernel_size": 4}, "kernel_size=4: expected an odd number"),
        ("convmixer", {"patch_size": 0}, "patch_size=0: expected a positive integer"),
        ("convmixer", {"dim": [256]}, "dim=[256]: expected a positive integer"),
        ("convmixer", {"depth": 500}, "depth=500 makes 1,002 layers: at most 1,000"),
    ],
)
@pytest.mark.parametrize("method", ["build", "skeleton"])
def test_bad_arguments_are_named(name: str, arguments: dict[str, Any], said: str, method: str) -> None:
    with pytest.raises(ValueError, match="cannot be built") as caught:
        getattr(Architecture(name=name, arguments=arguments), method)()
    assert name in str(caught.value)
    assert said in str(caught.value)
