"""masked_conv2d as PyTorch sees it: registered, compiled, exported, traced; and what it refuses."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from supermask.kernels.base.theta import Theta
from supermask.kernels.masked_conv2d.op import masked_conv2d
from tests.devices import On
from tests.kernels.masked_conv2d.convs import Conv, forward_and_backward, normal, whole_numbers
from tests.kernels.paths import path, random_words, same

CHECKED = [
    Conv(kernel=(2, 2), stride=(2, 1)),
    Conv(
        channels=20, groups=2, rows=4, coats=2, flips=True, source="signs", bias=False, dtype=torch.bfloat16, images=1
    ),
    Conv(channels=1, rows=1, kernel=(1, 1), channels_last=False, dtype=torch.float16),
    Conv(images=0),
]


@pytest.mark.parametrize("name", ["torch", "triton"])
@pytest.mark.parametrize("case", CHECKED, ids=["seed", "signs", "one", "none"])
def test_opcheck(case: Conv, name: str) -> None:
    with path(name) as on:
        x, bias = on(case.tensors(normal))
        y = case.run(x, bias)
        torch.library.opcheck(torch.ops.supermask.masked_conv2d, (x.requires_grad_(), *on(case.op_args(bias))))
        torch.library.opcheck(
            torch.ops.supermask.masked_conv2d_backward, (y, *on(case.op_args([case.channels, *case.size])))
        )


@pytest.mark.parametrize("case", CHECKED[:3], ids=["seed", "signs", "one"])
def test_compiled_equals_eager(case: Conv, on: On) -> None:
    with path("torch"):  # on the CPU; a GPU's tensors take the kernels
        call = case.bound(on.device)
        compiled = torch.compile(lambda x, bias: call(x * 1, bias), fullgraph=True, backend="aot_eager")
        every = [forward_and_backward(case, each, whole_numbers, on=on) for each in (compiled, call)]
        for found, wanted in zip(*every, strict=True):
            assert found is wanted is None or same(found, wanted)


def test_batches_of_any_size_share_one_graph(on: On) -> None:
    case = Conv()
    graphs: list[Any] = []

    def backend(graph: Any, inputs: Any) -> Any:
        graphs.append(graph)
        return graph

    x, bias = on(case.tensors(normal))
    compiled = torch.compile(case.bound(on.device), fullgraph=True, backend=backend)
    for images in (2, 3, 5):
        batch = x[:1].repeat(images, 1, 1, 1)
        torch._dynamo.mark_dynamic(batch, 0)
        assert same(compiled(batch, bias), case.run(batch, bias))
    assert len(graphs) == 1


def test_exported_equals_eager(on: On) -> None:
    case = Conv()
    call = case.bound(on.device)

    class Module(torch.nn.Module):
        def forward(self, x: Tensor, bias: Tensor) -> Tensor:
            return call(x, bias)

    x, bias = on(case.tensors(normal))
    exported = torch.export.export(Module(), (x, bias)).module()
    assert same(exported(x, bias), case.run(x, bias))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_traces_for_a_gpu(dtype: torch.dtype) -> None:
    case = Conv(channels=20, stride=(2, 1), groups=2, rows=6)
    with FakeTensorMode():
        words = torch.ones(2, 6, 4, dtype=torch.int32, device="cuda")
        theta = Theta(seed=1, layer=0, generation=0, constant=torch.ones(1, device="cuda"), signs=words[0])
        x = torch.ones(2, 20, 5, 6, dtype=dtype, device="cuda", requires_grad=True)
        bias = torch.ones(6, device="cuda", requires_grad=True)
        y = masked_conv2d(x, words, theta, case.kernel, bias=bias, flips=words[1], **case.steps())
        # The engine would ask the driver for the device; its node does not.
        grad_x, *_, grad_bias = [grad for grad in y.grad_fn.apply(torch.ones_like(y)) if grad is not None]
    expected = case.run(*case.tensors(normal))
    assert (y.shape, y.stride(), y.dtype, y.device.type) == (expected.shape, expected.stride(), dtype, "cuda")
    assert (grad_x.shape, grad_x.dtype, grad_x.device.type) == (x.shape, dtype, "cuda")
    assert (grad_bias.shape, grad_bias.dtype) == (bias.shape, torch.float32)


@pytest.mark.parametrize("name", ["torch", "triton"])
def test_under_autocast_x_is_converted(name: str) -> None:
    case = Conv(images=1)
    low = replace(case, dtype=torch.bfloat16)
    with path(name) as on:
        x, bias = on(case.tensors(normal))
        with torch.autocast(on.device.type, torch.bfloat16):
            found = case.run(x.requires_grad_(), bias)
            found.sum().backward()
        assert same(found, low.run(x.bfloat16(), bias))
    assert x.grad.dtype is torch.float32


def refused(error: type[Exception], said: str, **changes: Any) -> None:
    case = Conv()
    x, bias = case.tensors(normal)
    arguments = {
        "x": x, "mask": case.mask(), "theta": case.theta, "kernel_size": case.kernel, "bias": bias, **case.steps(),
        **changes,
    }  # fmt: skip
    with pytest.raises(error, match=said):
        masked_conv2d(**arguments)


X = torch.zeros(2, 3, 5, 6)


@pytest.mark.parametrize(
    ("error", "said", "changes"),
    [
        (TypeError, "x is torch.int32", {"x": X.int()}),
        (ValueError, r"x has shape \(3, 5, 6\)", {"x": X[0]}),
        (ValueError, "x has 4 channels and mask 5 rows: groups=3", {"x": torch.zeros(2, 4, 5, 6), "groups": 3}),
        (ValueError, "x has 3 channels and mask 5 rows: groups=3", {"groups": 3}),
        (ValueError, "groups=0", {"groups": 0}),
        (ValueError, "mask .*packed bits of 18 columns", {"mask": torch.zeros(5, 8, dtype=torch.int32)}),
        (ValueError, "mask .*packed bits of 720 columns", {"x": torch.zeros(2, 120, 5, 6)}),
        (ValueError, "mask is torch.int64", {"mask": torch.zeros(1, 5, 4, dtype=torch.int64)}),
        (ValueError, r"mask has shape \(0, 5, 4\)", {"mask": torch.zeros(0, 5, 4, dtype=torch.int32)}),
        (ValueError, r"mask has shape \(1, 1, 5, 4\)", {"mask": torch.zeros(1, 1, 5, 4, dtype=torch.int32)}),
        (ValueError, "mask .*strides", {"mask": torch.zeros(4, 5, dtype=torch.int32).t()}),
        (ValueError, "flips .*", {"flips": torch.zeros(4, 4, dtype=torch.int32)}),
        (ValueError, r"bias is torch.float32 of shape \(6,\)", {"bias": torch.zeros(6)}),
        (ValueError, "bias is torch.int64", {"bias": torch.zeros(5, dtype=torch.int64)}),
        (ValueError, r"height and width \(5, 6\) .*smaller than the kernel \(8, 2\)", {"kernel_size": (8, 2)}),
        (ValueError, r"dilation \(1, 6\)", {"dilation": (1, 6)}),
        (ValueError, "kernel_size is 0", {"kernel_size": 0}),
        (ValueError, r"kernel_size is \(3, 2, 1\)", {"kernel_size": (3, 2, 1)}),
        (TypeError, "kernel_size is 3.0", {"kernel_size": 3.0}),
        (ValueError, r"stride is \(0, 1\)", {"stride": (0, 1)}),
        (ValueError, "padding is -1", {"padding": -1}),
        (TypeError, "padding is 'same'", {"padding": "same"}),
        (ValueError, "dilation is 0", {"dilation": 0}),
        (ValueError, "theta.signs", {"theta": Conv().theta._replace(signs=random_words(4, 18, 1))}),
        (ValueError, "packed_weight", {"theta": Conv().theta._replace(base=torch.zeros(5, 18))}),
        (ValueError, "packed_weight", {"theta": Conv().theta._replace(real=("normal", 1.0))}),
        (ValueError, "theta.constant is torch.int64", {"theta": Conv().theta._replace(constant=torch.tensor([1]))}),
        (ValueError, r"theta.constant is .*\(5,\)", {"theta": Conv().theta._replace(constant=torch.ones(5))}),
        (ValueError, "bias is on meta and x on cpu", {"bias": torch.zeros(5, device="meta")}),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)  # fmt: skip
def test_refused(error: type[Exception], said: str, changes: dict[str, Any]) -> None:
    refused(error, said, **changes)


def test_kernels_do_not_take_float64() -> None:
    case = Conv(dtype=torch.float64)
    with path("triton") as on, pytest.raises(TypeError, match=r"x is torch\.float64.*torch\.float32.*float64,? too"):
        case.run(*on(case.tensors(normal)))
