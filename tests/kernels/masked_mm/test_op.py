"""masked_mm is the product with the weights it never makes, on every path, and so is its gradient."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from supermask.kernels.base.sizes import tried
from supermask.kernels.base.theta import Theta
from supermask.kernels.masked_mm import gpu as module
from supermask.kernels.masked_mm.op import masked_mm
from tests.devices import On, home
from tests.kernels.cases import GENERATIONS
from tests.kernels.packed_cases import Packed, errs_at_most_twice, packed_of, small_integers
from tests.kernels.paths import PATHS, SEEDS, every_path, guarded, path, random_reals, same, sizes
from tests.kernels.shares import shared_out

REALS = [torch.float32, torch.bfloat16, torch.float16]
DTYPES = [*REALS, torch.float64]
ROWS = sizes([1, 2, 31, 33, 64, 67], [130, 300])
COLS = sizes([1, 31, 33, 127, 128, 129, 251, 257], [640, 1030])
COUNTS = sizes([0, 1, 3, 17, 33], [65, 130])
LAYOUTS = st.sampled_from(["rows", "columns", "gaps"])
COATS = st.sampled_from([None, 1, 2, 3])


def laid_out(x: Tensor, layout: str) -> Tensor:
    """The same matrix with its columns contiguous, or with rows and columns apart."""
    if layout == "columns":
        return x.t().contiguous().t()
    if layout == "gaps":
        wide = torch.full((2 * x.shape[0] + 1, 3 * x.shape[1] + 1), float("nan"), dtype=x.dtype)
        wide[1::2, 1::3] = x
        return wide[1::2, 1::3]
    return x


@contextmanager
def programs(least: int) -> Iterator[None]:
    """The sum is split until there are `least` programs: with few, one takes several steps. It is private, as is
    the size of a program below: launchers choose both, and results may not depend on the choice."""
    with mock.patch.object(module, "_PROGRAMS", least):
        yield


def forward_and_gradient(x: Tensor, packed: Packed, bias: Tensor | None, grad: Tensor) -> tuple[Tensor, Tensor]:
    x = x.detach().requires_grad_()
    y = masked_mm(x, packed.mask, packed.theta, bias=bias, flips=packed.flips)
    (grad_x,) = torch.autograd.grad(y, x, grad)
    return y.detach(), grad_x


def in_this_thread(x: Tensor, packed: Packed, bias: Tensor | None, grad: Tensor) -> tuple[Tensor, Tensor]:
    """The same with the backward called as an op: on a GPU autograd has a thread for it, where nobody tries sizes."""
    _, coats, constant, signs, flips, *_, seed, layer, stream = arguments(packed, x, bias)
    y = masked_mm(x, packed.mask, packed.theta, bias=bias, flips=packed.flips)
    return y, torch.ops.supermask.masked_mm_backward(
        grad, coats, constant, signs, flips, seed, layer, stream, x.shape[-1]
    )


@shared_out(
    REALS, 30, count=COUNTS, rows=ROWS, cols=COLS, coats=COATS, layout=LAYOUTS, seed=SEEDS,
    generation=GENERATIONS, given=st.booleans(), flips=st.booleans(), biased=st.booleans(),
    density=st.sampled_from([0.0, 0.05, 0.5, 1.0]), least=st.sampled_from([1, 2, 256]), data=st.integers(0, 2**31),
)  # fmt: skip
def test_integers_are_exact(
    *, count: int, rows: int, cols: int, coats: int | None, layout: str, dtype: torch.dtype, seed: int,
    generation: int, given: bool, flips: bool, biased: bool, density: float, least: int, data: int,
) -> None:  # fmt: skip
    """No path may round sums of small integers, scaled by a power of two, but once at the end."""
    packed = packed_of(
        rows, cols, coats=coats, density=density, given=given, flips=flips, seed=seed, generation=generation,
        constant=0.25, data=data,
    )  # fmt: skip
    x, grad = small_integers((count, cols), dtype, data + 1), small_integers((count, rows), dtype, data + 2)
    bias = small_integers((rows,), dtype, data + 3) if biased else None
    weights = packed.weights()
    y = x.double() @ weights.t() + (bias.double() if bias is not None else 0)
    expected = y.to(dtype), (grad.double() @ weights).to(dtype)
    arguments = laid_out(x, layout), packed, bias, laid_out(grad, layout)
    with programs(least):
        for found in every_path(lambda on: forward_and_gradient(*on(arguments))):
            for one, wanted in zip(found, expected, strict=True):
                assert torch.equal(one, wanted)


@settings(max_examples=15)
@given(
    count=st.sampled_from([1, 5, 33]), rows=ROWS, cols=COLS, coats=COATS, dtype=st.sampled_from(REALS),
    given=st.booleans(), biased=st.booleans(), least=st.sampled_from([1, 256]), data=st.integers(0, 2**31),
)  # fmt: skip
def test_errs_at_most_twice_as_much_as_torch(
    *, count: int, rows: int, cols: int, coats: int | None, dtype: torch.dtype, given: bool, biased: bool, least: int,
    data: int,
) -> None:  # fmt: skip
    packed = packed_of(rows, cols, coats=coats, given=given, constant=0.1234567, data=data)
    x, grad = random_reals((count, cols), data + 1).to(dtype), random_reals((count, rows), data + 2).to(dtype)
    bias = random_reals((rows,), data + 3).to(dtype) if biased else None
    weights = packed.weights()
    arguments = x, packed, bias, grad
    added = torch.zeros(rows) if bias is None else bias
    exact = x.double() @ weights.t() + added.double(), grad.double() @ weights
    scales = x.double().abs() @ weights.abs().t() + added.double().abs(), grad.double().abs() @ weights.abs()

    def run(on: On) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
        """Ours, and PyTorch's own where ours is."""
        x, _, bias, grad = on(arguments)
        plain_weights = on(weights.to(dtype))
        plain = torch.nn.functional.linear(x, plain_weights, bias), grad @ plain_weights
        return forward_and_gradient(*on(arguments)), plain

    with programs(least):
        for found, plain in every_path(run):
            for compared in zip(found, plain, exact, scales, strict=True):
                errs_at_most_twice(*compared)


@pytest.mark.parametrize("block", [16, 32, 64])
def test_the_size_of_a_program_changes_nothing(block: int) -> None:
    packed = packed_of(130, 129, coats=2, constant=1.0)
    x, grad = small_integers((65, 129), torch.float16, 1), small_integers((65, 130), torch.float16, 2)
    weights = packed.weights()
    watched = mock.patch.object(module, "launch", wraps=module.launch)
    with path("triton") as on, tried("masked_mm", {"BLOCK_M": block, "BLOCK_N": 2 * block}), watched as launch:
        y, grad_x = home(in_this_thread(*on((x, packed, None, grad))))
    sizes = [call.kwargs["BLOCK_M"] for call in launch.call_args_list if "BLOCK_M" in call.kwargs]
    assert sizes == [block, block]
    assert torch.equal(y, (x.double() @ weights.t()).half())
    assert torch.equal(grad_x, (grad.double() @ weights).half())


@pytest.mark.parametrize("count", [1, 3])
def test_a_sum_split_among_programs_is_the_same(count: int) -> None:
    packed = packed_of(130, 641, flips=True, constant=1.0)
    x, grad = small_integers((count, 641), torch.float32, 1), small_integers((count, 130), torch.float32, 2)
    bias, weights = small_integers((130,), torch.float32, 3), packed.weights()
    watched = mock.patch.object(module, "launch", wraps=module.launch)
    small = tried("masked_mm", {"BLOCK_M": 16, "BLOCK_N": 32})
    with path("triton") as on, guarded(), small, watched as launch:
        y, grad_x = home(in_this_thread(*on((x, packed, bias, grad))))
    grids = [call.args[1] for call in launch.call_args_list]
    assert [grid[2] for grid in grids if len(grid) == 3] == [3, 2]
    assert torch.equal(y, (x.double() @ weights.t() + bias.double()).float())
    assert torch.equal(grad_x, (grad.double() @ weights).float())


@pytest.mark.parametrize("shape", [(131,), (2, 3, 131), (0, 131), (2, 0, 131), (1, 1, 1, 131)], ids=str)
def test_leading_axes_are_kept(shape: tuple[int, ...]) -> None:
    packed = packed_of(5, 131, constant=1.0)
    x = small_integers(shape, torch.float32, 1)
    expected = (x.double() @ packed.weights().t()).float()
    grad = small_integers((*shape[:-1], 5), torch.float32, 2)
    for y, grad_x in every_path(lambda on: forward_and_gradient(*on((x, packed, None, grad)))):
        assert torch.equal(y, expected)
        assert torch.equal(grad_x, (grad.double() @ packed.weights()).float())


def test_an_infinity_stays_in_its_sums() -> None:
    """It reaches the outputs it has an edge to, as it would with the weights made."""
    packed = packed_of(33, 129, density=1.0)
    x = torch.ones(2, 129)
    x[1, 128] = float("inf")
    for y in every_path(lambda on: masked_mm(*on((x, packed.mask, packed.theta)))):
        assert y[0].isfinite().all()
        assert torch.equal(y[1], packed.weights()[:, 128].sign().float() * float("inf"))


@pytest.mark.parametrize("bias_dtype", [torch.bfloat16, torch.float32], ids=str)
def test_bias_is_added_before_rounding_and_has_its_gradient(bias_dtype: torch.dtype) -> None:
    packed = packed_of(5, 131, constant=1.0)
    x = small_integers((3, 131), torch.bfloat16, 1)
    bias = torch.tensor([0.25, 1.0, -3.0, 0.0, 7.5]).to(bias_dtype)

    def run(on: On) -> tuple[Tensor, Tensor]:
        leaf = on(bias).requires_grad_()
        y = masked_mm(*on((x, packed.mask, packed.theta)), bias=leaf)
        y.sum().backward()
        return y.detach(), leaf.grad

    expected = (x.double() @ packed.weights().t() + bias.double()).bfloat16()
    for y, grad in every_path(run):
        assert torch.equal(y, expected)
        assert same(grad, torch.full((5,), 3.0, dtype=bias_dtype))


def test_gradient_and_its_own_are_the_derivatives() -> None:
    packed = packed_of(7, 33, coats=2, given=True, flips=True)
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(2, 3, 33, dtype=torch.float64, generator=generator, requires_grad=True)
    bias = torch.randn(7, dtype=torch.float64, generator=generator, requires_grad=True)

    def call(x: Tensor, bias: Tensor) -> Tensor:
        return masked_mm(x, packed.mask, packed.theta, bias=bias, flips=packed.flips)

    with path("torch"):
        assert torch.autograd.gradcheck(call, (x, bias))
        assert torch.autograd.gradgradcheck(call, (x, bias))


def test_only_x_and_bias_have_a_gradient(on: On) -> None:
    packed = on(packed_of(5, 131))
    constant = packed.theta.constant.clone().requires_grad_()
    y = masked_mm(on(torch.ones(2, 131)), packed.mask, packed.theta._replace(constant=constant))
    assert not y.requires_grad


def arguments(packed: Packed, x: Tensor, bias: Tensor | None) -> tuple[Any, ...]:
    coats = packed.mask if packed.mask.ndim == 3 else packed.mask[None]
    constant, signs, _, *counter = packed.theta.schema()
    return x, coats, constant, signs, packed.flips, None, bias, *counter


@pytest.mark.parametrize("name", PATHS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_opcheck(dtype: torch.dtype, name: str) -> None:
    packed = packed_of(5, 131, coats=2, given=dtype is torch.bfloat16, flips=True)
    x = torch.ones(2, 3, 131, dtype=dtype, requires_grad=True)
    forward = arguments(packed, x, torch.ones(5, dtype=dtype))
    _, mask, constant, signs, flips, *_ = forward
    backward = torch.ones(2, 3, 5, dtype=dtype), mask, constant, signs, flips, *forward[7:], 131
    with path(name) as on:
        torch.library.opcheck(torch.ops.supermask.masked_mm, on(forward))
        torch.library.opcheck(torch.ops.supermask.masked_mm_backward, on(backward))


def layer(packed: Packed) -> Callable[[Tensor, Tensor], Tensor]:
    return lambda x, bias: masked_mm(x, packed.mask, packed.theta, bias=bias, flips=packed.flips)


def run_and_gradients(call: Callable[[Tensor, Tensor], Tensor], x: Tensor, bias: Tensor) -> tuple[Tensor, ...]:
    x, bias = x.clone().requires_grad_(), bias.clone().requires_grad_()
    y = call(x * 1, bias)
    y.backward(small_integers(tuple(y.shape), y.dtype, 6).to(y.device))
    return y.detach(), x.grad, bias.grad


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("given", [False, True])
def test_compiled_equals_eager(given: bool, count: int, on: On) -> None:
    packed = on(packed_of(5, 131, coats=2, given=given, flips=True, constant=0.5))
    x, bias = on((small_integers((count, 131), torch.float32, 1), small_integers((5,), torch.float32, 2)))
    expected = run_and_gradients(layer(packed), x, bias)
    compiled = torch.compile(layer(packed), fullgraph=True, backend="aot_eager")
    for found, wanted in zip(run_and_gradients(compiled, x, bias), expected, strict=True):
        assert torch.equal(found, wanted)


@pytest.mark.slow
@pytest.mark.parametrize("count", [1, 3])
def test_inductor_equals_eager(count: int, on: On) -> None:
    packed = on(packed_of(67, 257, given=True, flips=True, constant=0.5))
    x, bias = on((small_integers((count, 257), torch.float32, 1), small_integers((67,), torch.float32, 2)))
    expected = run_and_gradients(layer(packed), x, bias)
    compiled = torch.compile(layer(packed), fullgraph=True)
    for found, wanted in zip(run_and_gradients(compiled, x, bias), expected, strict=True):
        assert torch.equal(found, wanted)


class _Layer(torch.nn.Module):
    def __init__(self, packed: Packed) -> None:
        super().__init__()
        self.theta = packed.theta
        self.register_buffer("mask", packed.mask)

    def forward(self, x: Tensor) -> Tensor:
        return masked_mm(x, self.mask, self.theta)


@pytest.mark.parametrize("given", [False, True])
def test_exported_equals_eager(given: bool, on: On) -> None:
    """Of any number of rows."""
    module = _Layer(on(packed_of(5, 131, given=given, constant=0.5)))
    count = torch.export.Dim("count", min=2)
    program = torch.export.export(module, (on(torch.ones(4, 131)),), dynamic_shapes={"x": {0: count}})
    x = on(small_integers((7, 131), torch.float32, 1))
    assert torch.equal(program.module()(x), module(x))


@pytest.mark.parametrize("dtype", REALS, ids=str)
def test_traces_for_a_gpu(dtype: torch.dtype) -> None:
    with FakeTensorMode():
        words = torch.ones(2, 6, 4, dtype=torch.int32, device="cuda")
        theta = Theta(seed=1, layer=0, generation=0, constant=torch.ones(1, device="cuda"))
        x = torch.ones(3, 2, 45, device="cuda", dtype=dtype, requires_grad=True)
        y = masked_mm(x, words, theta, bias=torch.ones(6, device="cuda"))
        grad = torch.ops.supermask.masked_mm_backward(y.detach(), words, theta.constant, None, None, 1, 0, 0, 45)
    assert (tuple(y.shape), y.dtype, y.device.type) == ((3, 2, 6), dtype, "cuda")
    assert (tuple(grad.shape), grad.dtype, grad.device.type) == ((3, 2, 45), dtype, "cuda")


WORDS = torch.zeros(5, 8, dtype=torch.int32)


@pytest.mark.parametrize(
    ("changes", "error", "said"),
    [
        ({"x": torch.ones(2, 131, dtype=torch.int32)}, TypeError, "x is torch.int32"),
        ({"x": torch.ones(())}, ValueError, "x is a scalar"),
        ({"x": torch.ones(2, 128)}, ValueError, "mask .*128 columns"),
        ({"x": torch.ones(2, 257)}, ValueError, "mask .*257 columns"),
        ({"mask": torch.zeros(5, 8)}, ValueError, "mask is torch.float32"),
        ({"mask": torch.zeros(40, dtype=torch.int32)}, ValueError, r"mask .*\(40,\)"),
        ({"mask": torch.zeros(0, 5, 8, dtype=torch.int32)}, ValueError, r"mask .*\(0, 5, 8\)"),
        ({"mask": torch.zeros(8, 5, dtype=torch.int32).t()}, ValueError, r"mask .*strides \(1, 5\)"),
        ({"mask": torch.zeros(2, 5, 8, dtype=torch.int32)[:, :, ::2]}, ValueError, "mask .*strides"),
        ({"flips": torch.zeros(4, 8, dtype=torch.int32)}, ValueError, r"flips .*\(4, 8\)"),
        ({"flips": torch.zeros(5, 8)}, ValueError, "flips is torch.float32"),
        ({"signs": torch.zeros(5, 4, dtype=torch.int32)}, ValueError, r"theta.signs .*\(5, 4\)"),
        ({"base": torch.zeros(5, 131)}, ValueError, "theta.base .*packed_weight"),
        ({"real": ("normal", 1.0)}, ValueError, "theta.real .*packed_weight"),
        ({"constant": torch.ones(5)}, ValueError, r"theta.constant .*\(5,\)"),
        ({"constant": torch.ones(1).double()}, ValueError, "theta.constant is torch.float64"),
        ({"bias": torch.ones(5, dtype=torch.float16)}, TypeError, "bias is torch.float16"),
        ({"bias": torch.ones(4)}, ValueError, r"bias .*\(4,\)"),
        ({"bias": torch.ones(1, 5)}, ValueError, r"bias .*\(1, 5\)"),
        ({"bias": torch.ones(10)[::2]}, ValueError, r"bias .*strides \(2,\)"),
        ({"bias": torch.ones(5, device="meta")}, ValueError, "bias is on meta and x on cpu"),
        ({"mask": WORDS.to("meta")}, ValueError, "mask is on meta and x on cpu"),
        ({"flips": WORDS.to("meta")}, ValueError, "flips is on meta and x on cpu"),
        ({"codes": torch.zeros(5, 16)}, TypeError, "codes are torch.float32"),
        ({"mask": torch.stack([WORDS, WORDS]), "codes": WORDS}, ValueError, r"codes .*\(2, 5, 8\).*one coat"),
        ({"codes": WORDS.to("meta")}, ValueError, "codes are on meta"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_wrong_arguments_are_refused(changes: dict[str, Any], error: type[Exception], said: str) -> None:
    given = {"x": torch.ones(2, 131), "mask": WORDS, **changes}
    theta = packed_of(5, 131).theta
    theta = theta._replace(**{key: given.pop(key) for key in ("signs", "base", "real", "constant") if key in given})
    with pytest.raises(error, match=said):
        masked_mm(given.pop("x"), given.pop("mask"), theta, **given)
