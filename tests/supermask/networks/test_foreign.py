"""Layers of other packages, told by the file that defines them: masked, they compute as theirs."""

import sys
import types
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from supermask.edges.in_model import searched_edges
from supermask.networks.convert import convert
from supermask.networks.foreign import SameConv2d, StandardisedConv2d, TransposedLinear
from supermask.tickets import exports
from supermask.tickets.load import load
from supermask.tickets.save import save


def padded(conv: Any, x: Tensor) -> Tensor:
    """As TensorFlow pads: the odd pixel at the end."""
    pads = []
    for size, kernel, stride in zip(x.shape[:1:-1], conv.kernel_size[::-1], conv.stride[::-1], strict=True):
        total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
        pads += [total // 2, total - total // 2]
    return F.pad(x, pads)


@pytest.fixture
def packages(monkeypatch: pytest.MonkeyPatch) -> dict[str, type[nn.Module]]:
    """Layers as other packages have them, in files of these names."""

    class Conv1D(nn.Module):
        def __init__(self, nf: int, nx: int) -> None:
            super().__init__()
            self.nf, self.nx = nf, nx
            self.weight, self.bias = nn.Parameter(torch.randn(nx, nf)), nn.Parameter(torch.randn(nf))

        def forward(self, x: Tensor) -> Tensor:
            return torch.addmm(self.bias, x.view(-1, self.nx), self.weight).view(*x.shape[:-1], self.nf)

    class StdConv2d(nn.Conv2d):
        eps = 1e-6

        def forward(self, x: Tensor) -> Tensor:
            rows = self.weight.reshape(1, self.out_channels, -1)
            weight = F.batch_norm(rows, None, None, training=True, momentum=0.0, eps=self.eps).reshape_as(self.weight)
            return F.conv2d(x, weight, self.bias, self.stride, self.padding, self.dilation, self.groups)

    class StdConv2dSame(StdConv2d):
        same_pad = True

        def forward(self, x: Tensor) -> Tensor:
            return super().forward(padded(self, x))

    class ScaledStdConv2d(nn.Conv2d):
        def __init__(self, *args: Any, **how: Any) -> None:
            super().__init__(*args, **how)
            self.gain = nn.Parameter(torch.rand(self.out_channels, 1, 1, 1))
            self.eps, self.scale = 1e-6, self.weight[0].numel() ** -0.5

        def forward(self, x: Tensor) -> Tensor:
            rows = self.weight.reshape(1, self.out_channels, -1)
            scale = (self.gain * self.scale).view(-1)
            weight = F.batch_norm(rows, None, None, weight=scale, training=True, momentum=0.0, eps=self.eps)
            return F.conv2d(x, weight.reshape_as(self.weight), self.bias, self.stride, self.padding, self.dilation)

    class Conv2dSame(nn.Conv2d):
        def forward(self, x: Tensor) -> Tensor:
            return F.conv2d(padded(self, x), self.weight, self.bias, self.stride)

    found: dict[str, type[nn.Module]] = {}
    for file, kinds in {
        "transformers.pytorch_utils": [Conv1D],
        "timm.layers.std_conv": [StdConv2d, StdConv2dSame, ScaledStdConv2d],
        "timm.layers.conv2d_same": [Conv2dSame],
    }.items():
        module = types.ModuleType(file)
        monkeypatch.setitem(sys.modules, file, module)
        for kind in kinds:
            kind.__module__, kind.__qualname__ = file, kind.__name__
            setattr(module, kind.__name__, kind)
            found[kind.__name__] = kind
    return found


@pytest.mark.parametrize(
    ("name", "form", "arguments", "shape"),
    [
        ("Conv1D", TransposedLinear, (6, 10), (2, 3, 10)),
        ("StdConv2d", StandardisedConv2d, (4, 6, 3, 2, 1), (2, 4, 7, 8)),
        ("StdConv2dSame", StandardisedConv2d, (4, 6, 3, 2), (2, 4, 7, 8)),
        ("ScaledStdConv2d", StandardisedConv2d, (4, 6, 3), (2, 4, 7, 8)),
        ("Conv2dSame", SameConv2d, (4, 6, 3, 2), (2, 4, 7, 8)),
    ],
)
def test_layers_of_other_packages_compute_as_theirs(
    packages: dict[str, type[nn.Module]], name: str, form: type[nn.Module], arguments: Any, shape: Any, tmp_path: Path
) -> None:
    dense = packages[name](*arguments)
    model = convert(nn.Sequential(dense), seed=1, bias="freeze")
    assert type(model[0]) is form
    fan_in = 10 if name == "Conv1D" else 36
    assert float(model[0].edges.constant) == pytest.approx((2 / fan_in) ** 0.5)
    x = torch.randn(shape)
    with torch.no_grad():
        effective = model[0].weight
        dense.weight.copy_(effective)  # type: ignore[operator,union-attr]
        if name == "ScaledStdConv2d":
            assert torch.equal(model[0].gain, dense.gain)  # type: ignore[arg-type]
            assert not model[0].gain.requires_grad
    torch.testing.assert_close(model(x), dense(x))
    save(model, tmp_path / "ticket", architecture=None)
    for network in (load, exports.dense):
        found = network(tmp_path / "ticket", model=nn.Sequential(packages[name](*arguments)))
        torch.testing.assert_close(found(x), model(x))
    model(x).square().sum().backward()
    assert model[0].edges.scores.grad.abs().sum() > 0


def test_a_subclass_of_another_packages_layer_is_left(packages: dict[str, type[nn.Module]]) -> None:
    own = type("Own", (packages["StdConv2d"],), {})
    model = convert(nn.Sequential(own(2, 2, 1), nn.Conv2d(2, 2, 1)), seed=1)
    assert list(searched_edges(model)) == ["1"]


def test_a_module_that_reads_the_weight_of_another_packages_layer(packages: dict[str, type[nn.Module]]) -> None:
    """As it is there, [in, out]: of a square one nobody would notice."""

    class Reading(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.c = packages["Conv1D"](4, 4)

        def forward(self, x: Tensor) -> Tensor:
            return x @ self.c.weight  # type: ignore[no-any-return, operator]

    model, x = convert(Reading(), seed=1), torch.randn(2, 4)
    assert torch.equal(model(x), model.c(x))  # type: ignore[operator]
    assert (model.c.nx, model.c.nf) == (4, 4)
