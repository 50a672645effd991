"""Convolutional networks for small images, 32x32 as a rule: Conv2 to Conv8, VGG-16, ResNet-18, ResNeXt-29, ConvMixer.

Each takes images [batch, channels, height, width] and gives logits [batch, num_classes]. A layer has a bias unless
batch norm comes right after it. The output layer is called `fc`, or is the last of `fc1`, `fc2`, ... in Conv2 to Conv8.
"""

import math
from collections import OrderedDict
from collections.abc import Callable, Sequence
from itertools import pairwise

from torch import Tensor, nn

MOST_LAYERS = 1000  # a network of more would take a file's reader minutes to build


def convnet(
    depth: int,
    /,
    *,
    num_classes: int = 10,
    channels: int = 3,
    size: int = 32,
    widths: Sequence[int] | None = None,
    hidden: int | Sequence[int] = (256, 256),
    norm: bool = False,
) -> nn.Sequential:
    """Pairs of 3x3 convolutions, 2x2 max-pooling after each pair, then linear layers; ReLU after all but the last.

    Frankle & Carbin 2019, figure 2 (Conv2 to Conv6); Ramanujan et al. 2020 (Conv8). They use no batch norm.

    Args:
        depth: number of convolutions, even.
        num_classes: features of the output.
        channels: of the input.
        size: side of the input in pixels; each pooling halves it, rounding down.
        widths: channels after each convolution; by default 64, 64, 128, 128, 256, 256, 512, 512, as far as needed.
        hidden: features of the hidden linear layers, or of the only one.
        norm: batch norm before each ReLU.

    Raises:
        ValueError: a depth that is odd, widths of another number, a size that the poolings use up, more than 1,000
            layers, or an argument of another type.
    """
    check_positive(depth=depth, num_classes=num_classes, channels=channels, size=size)
    check_bool("norm", norm)
    if depth % 2:
        raise ValueError(f"depth={depth}: expected an even number of convolutions, pooling follows each pair")
    widths = [64 << number // 2 for number in range(depth)] if widths is None else positive_list("widths", widths)
    hidden = positive_list("hidden", [hidden] if isinstance(hidden, int) else hidden)
    check_layers(f"hidden of {len(hidden):,} numbers", depth + len(hidden) + 1)
    if len(widths) != depth:
        raise ValueError(f"widths={widths}: expected {depth}, one a convolution")
    side = size >> depth // 2
    if not side:
        raise ValueError(f"size={size}: {depth // 2} poolings halve it, so at least {1 << depth // 2} is needed")
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    for number, (before, after) in enumerate(pairwise([channels, *widths]), start=1):
        layers[f"conv{number}"] = nn.Conv2d(before, after, 3, padding=1, bias=not norm)
        if norm:
            layers[f"norm{number}"] = nn.BatchNorm2d(after)
        layers[f"relu{number}"] = nn.ReLU()
        if number % 2 == 0:
            layers[f"pool{number // 2}"] = nn.MaxPool2d(2)
    layers["flatten"] = nn.Flatten()
    features = [widths[-1] * side**2, *hidden]
    for number, (before, after) in enumerate(pairwise(features), start=1):
        layers[f"fc{number}"] = nn.Linear(before, after, bias=not norm)
        if norm:
            layers[f"fc_norm{number}"] = nn.BatchNorm1d(after)
        layers[f"fc_relu{number}"] = nn.ReLU()
    layers[f"fc{len(features)}"] = nn.Linear(features[-1], num_classes)
    return _initialised(nn.Sequential(layers))


def vgg16_bn(*, num_classes: int = 10, channels: int = 3, width: float = 1.0) -> nn.Sequential:
    """VGG-16 for 32x32 images: 13 convolutions with batch norm, five poolings, and one linear layer.

    Simonyan & Zisserman 2015, configuration D, with one linear layer in place of three, as is usual for CIFAR; it gets
    the mean over positions where larger images leave several.

    Args:
        num_classes: features of the output.
        channels: of the input.
        width: factor of the numbers of channels.

    Raises:
        ValueError: an argument that is not positive, or a width that leaves no channel.
    """
    check_positive(num_classes=num_classes, channels=channels)
    base = _scaled(64, width)
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    before = channels
    for stage, (after, convolutions) in enumerate(zip((1, 2, 4, 8, 8), (2, 2, 3, 3, 3), strict=True), start=1):
        widths = [before, *[base * after] * convolutions]
        layers[f"stage{stage}"] = _convolutions(*(_conv(*ends, 3) for ends in pairwise(widths)))
        layers[f"relu{stage}"] = nn.ReLU()
        layers[f"pool{stage}"] = nn.MaxPool2d(2)
        before = widths[-1]
    return _initialised(nn.Sequential(layers | _head(before, num_classes)))


def resnet18(*, num_classes: int = 10, channels: int = 3, width: float = 1.0) -> nn.Sequential:
    """ResNet-18 for 32x32 images: the first convolution is 3x3 of stride 1, and no pooling follows it.

    He et al. 2016, table 1, so changed, as is usual for CIFAR.

    Args:
        num_classes: features of the output.
        channels: of the input.
        width: factor of the numbers of channels, which are 64, 128, 256 and 512; 2 for "ResNet-18 x2 wide".

    Raises:
        ValueError: an argument that is not positive, or a width that leaves no channel.
    """
    check_positive(num_classes=num_classes, channels=channels)
    base = _scaled(64, width)

    def body(before: int, after: int, stride: int) -> nn.Sequential:
        return _convolutions(_conv(before, after, 3, stride), _conv(after, after, 3))

    outputs = (base, 2 * base, 4 * base, 8 * base)
    return _residual_network(body, outputs, blocks=2, stem=base, channels=channels, num_classes=num_classes)


def resnext29(*, num_classes: int = 10, channels: int = 3, groups: int = 32, width_per_group: int = 4) -> nn.Sequential:
    """ResNeXt-29 for 32x32 images: three stages of three bottleneck blocks with grouped 3x3 convolutions.

    Xie et al. 2017, section 5.3; its 32x4d variant unless told otherwise.

    Args:
        num_classes: features of the output.
        channels: of the input.
        groups: of the 3x3 convolutions (the paper's cardinality).
        width_per_group: channels of a group in the first stage, doubled in the second and again in the third.

    Raises:
        ValueError: an argument that is not a positive integer.
    """
    check_positive(num_classes=num_classes, channels=channels, groups=groups, width_per_group=width_per_group)

    def body(before: int, after: int, stride: int) -> nn.Sequential:
        inner = groups * width_per_group * after // 256
        grouped = _conv(inner, inner, 3, stride, groups)
        return _convolutions(_conv(before, inner, 1), grouped, _conv(inner, after, 1))

    return _residual_network(body, (256, 512, 1024), blocks=3, stem=64, channels=channels, num_classes=num_classes)


def convmixer(
    *,
    num_classes: int = 10,
    channels: int = 3,
    dim: int = 256,
    depth: int = 8,
    kernel_size: int = 5,
    patch_size: int = 2,
) -> nn.Sequential:
    """ConvMixer: patches, then `depth` times a depthwise convolution with a shortcut and a 1x1 convolution.

    Trockman & Kolter 2022, section 2; ConvMixer-256/8 unless told otherwise. GELU stands between each convolution and
    its batch norm, so all convolutions have biases.

    Args:
        num_classes: features of the output.
        channels: of the input.
        dim: channels of all layers.
        depth: number of blocks.
        kernel_size: side of the depthwise convolutions, odd.
        patch_size: side of a patch in pixels.

    Raises:
        ValueError: an argument that is not a positive integer, an even kernel size, or too deep a network.
    """
    check_positive(num_classes=num_classes, channels=channels, dim=dim, depth=depth)
    check_positive(kernel_size=kernel_size, patch_size=patch_size)
    check_layers(f"depth={depth}", 2 * depth + 2)
    if kernel_size % 2 == 0:
        raise ValueError(f"kernel_size={kernel_size}: expected an odd number, the shortcut needs the same positions")

    def mixed(convolution: nn.Conv2d) -> nn.Sequential:
        return nn.Sequential(OrderedDict(conv=convolution, gelu=nn.GELU(), norm=nn.BatchNorm2d(dim)))

    layers: OrderedDict[str, nn.Module] = OrderedDict()
    layers["patches"] = mixed(nn.Conv2d(channels, dim, patch_size, stride=patch_size))
    for number in range(1, depth + 1):
        depthwise = nn.Conv2d(dim, dim, kernel_size, padding=kernel_size // 2, groups=dim)
        layers[f"depthwise{number}"] = Shortcut(mixed(depthwise))
        layers[f"pointwise{number}"] = mixed(nn.Conv2d(dim, dim, 1))
    return nn.Sequential(layers | _head(dim, num_classes))


class Shortcut(nn.Module):
    """body(x) + x, or + shortcut(x) where the body changes the shape."""

    def __init__(self, body: nn.Module, shortcut: nn.Module | None = None) -> None:
        super().__init__()
        self.body, self.shortcut = body, shortcut

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.body(x) + (x if self.shortcut is None else self.shortcut(x))
        return out


def _residual_network(
    body: Callable[[int, int, int], nn.Module],
    outputs: Sequence[int],
    *,
    blocks: int,
    stem: int,
    channels: int,
    num_classes: int,
) -> nn.Sequential:
    """A 3x3 convolution to `stem` channels, stages of residual blocks, and the head.

    Args:
        body: of a block, for its channels before and after it and its stride.
        outputs: channels of each stage; the first block of every stage but the first has stride 2.
        blocks: in a stage.
    """

    def block(before: int, after: int, stride: int) -> nn.Module:
        same = stride == 1 and before == after
        shortcut = None if same else _convolutions(_conv(before, after, 1, stride))
        return nn.Sequential(OrderedDict(residual=Shortcut(body(before, after, stride), shortcut), relu=nn.ReLU()))

    layers: OrderedDict[str, nn.Module] = OrderedDict()
    layers["stem"] = _convolutions(_conv(channels, stem, 3))
    layers["relu"] = nn.ReLU()
    for stage, (before, after) in enumerate(pairwise([stem, *outputs])):
        first = block(before, after, 2 if stage else 1)
        layers[f"stage{stage + 1}"] = nn.Sequential(first, *(block(after, after, 1) for _ in range(blocks - 1)))
    return _initialised(nn.Sequential(layers | _head(outputs[-1], num_classes)))


def _conv(before: int, after: int, side: int, stride: int = 1, groups: int = 1) -> nn.Conv2d:
    return nn.Conv2d(before, after, side, stride, padding=side // 2, groups=groups, bias=False)


def _convolutions(*convolutions: nn.Conv2d) -> nn.Sequential:
    """The convolutions, batch norm after each, ReLU between them."""
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    for number, convolution in enumerate(convolutions, start=1):
        if number > 1:
            layers[f"relu{number - 1}"] = nn.ReLU()
        layers[f"conv{number}"] = convolution
        layers[f"norm{number}"] = nn.BatchNorm2d(convolution.out_channels)
    return nn.Sequential(layers)


def _head(features: int, num_classes: int) -> OrderedDict[str, nn.Module]:
    """Mean over positions and one linear layer."""
    return OrderedDict(pool=nn.AdaptiveAvgPool2d(1), flatten=nn.Flatten(), fc=nn.Linear(features, num_classes))


def _initialised(network: nn.Sequential) -> nn.Sequential:
    """`network` with the weights that ReLU follows drawn as in He et al. 2015. A search does not use them.

    Torch's own are so small that what reaches the output of a dense Conv8 is all bias: one part in a thousand of it
    depends on the input.
    """
    for module in network.modules():
        if isinstance(module, nn.Conv2d) or (isinstance(module, nn.Linear) and module is not network[-1]):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    return network


def _scaled(base: int, width: float) -> int:
    """`base` channels times `width`, rounded."""
    if isinstance(width, bool) or not isinstance(width, int | float) or not math.isfinite(width):
        raise ValueError(f"width={width!r}: expected a number, the factor of the numbers of channels")
    scaled = round(base * width)
    if scaled < 1:
        raise ValueError(f"width={width}: expected at least {1 / base}, which leaves one channel of {base}")
    return scaled


def check_positive(**values: object) -> None:
    """Raise ValueError unless each value is a positive integer."""
    for name, value in values.items():
        if type(value) is not int or value < 1:
            raise ValueError(f"{name}={value!r}: expected a positive integer")


def check_bool(name: str, value: object) -> None:
    """Raise ValueError unless `value` is true or false."""
    if not isinstance(value, bool):
        raise ValueError(f"{name}={value!r}: expected true or false")


def positive_list(name: str, values: object) -> list[int]:
    """`values` as a list, or ValueError unless they are positive integers."""
    if not isinstance(values, list | tuple) or any(type(value) is not int or value < 1 for value in values):
        raise ValueError(f"{name}={values!r}: expected a list of positive integers")
    return list(values)


def check_layers(what: str, layers: int) -> None:
    """Raise ValueError where a network has more layers than can be built at once."""
    if layers > MOST_LAYERS:
        raise ValueError(f"{what} makes {layers:,} layers: at most {MOST_LAYERS:,} are built")


class MLP(nn.Sequential):
    """Linear layers without biases, with batch norm and ReLU between them; inputs [batch, ...] are flattened.

    Args:
        sizes: features of the input, of every hidden layer, and of the output.
        norm: batch norm after the hidden layers.

    Raises:
        ValueError: fewer than two sizes, one that is not a positive integer, or more than 1,000 layers.
    """

    def __init__(self, sizes: Sequence[int], *, norm: bool = True) -> None:
        check_bool("norm", norm)
        sizes = positive_list("sizes", sizes)
        if len(sizes) < 2:
            raise ValueError(f"sizes={sizes}: expected at least two, those of input and output")
        check_layers(f"sizes of {len(sizes):,} numbers", len(sizes) - 1)
        layers: OrderedDict[str, nn.Module] = OrderedDict(flatten=nn.Flatten())
        for number, (before, after) in enumerate(pairwise(sizes), start=1):
            layers[f"fc{number}"] = nn.Linear(before, after, bias=False)
            if number < len(sizes) - 1:
                if norm:
                    layers[f"norm{number}"] = nn.BatchNorm1d(after)
                layers[f"relu{number}"] = nn.ReLU()
        super().__init__(layers)
