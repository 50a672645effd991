"""masked_conv2d is the convolution with the weights that the bits stand for, forward and for x, on every path."""

from typing import Any
from unittest import mock

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings

from supermask.kernels.masked_conv2d import gpu as module
from supermask.kernels.masked_conv2d.op import masked_conv2d
from supermask.kernels.masked_conv2d.taps import tap_codes
from supermask.kernels.packed_weight.op import packed_weight
from tests.devices import On, home
from tests.kernels.cases import theta_plain
from tests.kernels.masked_conv2d.convs import Conv, Pair, convs, forward_and_backward, normal, whole_numbers
from tests.kernels.paths import PATHS, every_path, guarded, path, random_words, same, unpack_plain

EXPLICIT = [
    Conv(channels=5, rows=10, groups=5, kernel=(3, 3), stride=(2, 1), images=1),  # depthwise
    Conv(channels=130, rows=70, kernel=(2, 1), images=1, size=(3, 4), flips=True, coats=2),
    Conv(channels=129, rows=35, kernel=(1, 1), images=1, size=(3, 4), dtype=torch.bfloat16),
    Conv(channels=144, rows=35, kernel=(1, 1), images=1, size=(3, 4), dtype=torch.bfloat16),
    Conv(channels=96, rows=70, groups=2, kernel=(1, 1), images=1, size=(3, 4), dtype=torch.float16, flips=True),
    Conv(channels=2, rows=3, kernel=(1, 31), dtype=torch.float16, size=(1, 29), padding=(0, 1), images=1),
    Conv(
        channels=2, rows=3, kernel=(30, 1), size=(32, 1), padding=(2, 0), images=1, stride=(3, 1), dtype=torch.float16
    ),
    Conv(channels=3, rows=65, kernel=(7, 7), stride=(2, 2), padding=(3, 3), images=1, dtype=torch.bfloat16),  # a stem
    Conv(channels=35, rows=4, kernel=(3, 3), stride=(4, 5), dilation=(2, 5), padding=(4, 5), images=1),
    Conv(images=0),
]


def check_exact(case: Conv) -> None:
    exact = forward_and_backward(case, case.plain, whole_numbers, torch.float64)
    every = every_path(lambda on: forward_and_backward(case, case.run, whole_numbers, on=on))
    for name, results in zip(PATHS, every, strict=True):
        if name == "torch" and case.dtype is not torch.float32:
            continue  # PyTorch's own sums round to 16 bits more than once
        for found, expected in zip(results, exact, strict=True):
            assert found is expected is None or torch.equal(found, expected.to(case.dtype))
        assert case.images == 0 or results[0].is_contiguous(memory_format=torch.channels_last)


@settings(max_examples=12)
@given(case=convs())
def test_sums_of_whole_numbers_are_exact(case: Conv) -> None:
    """Every product and sum of these is a float32: so is the result, in any order of summation."""
    check_exact(case)


@pytest.mark.parametrize("case", EXPLICIT, ids=lambda case: f"{case.channels}-{case.rows}-{case.kernel}")
def test_corner_cases_are_exact(case: Conv) -> None:
    check_exact(case)


@settings(max_examples=10)
@given(case=convs(constant=0.3))
def test_errors_are_at_most_twice_those_of_pytorch(case: Conv) -> None:
    """Against float64. A sum can be right by luck, hence half a unit in the last place of the sum of magnitudes."""
    exact = forward_and_backward(case, case.plain, normal, torch.float64)
    sizes = forward_and_backward(case, case.magnitudes, lambda shape: normal(shape).abs(), torch.float64)

    def run(on: On) -> list[Any]:
        """Ours, and PyTorch's own where ours is."""
        return [forward_and_backward(case, call, normal, on=on) for call in (case.run, case.plain)]

    for results, own in every_path(run):
        for found, expected, rival, size in zip(results, exact, own, sizes, strict=True):
            if found is None:
                continue
            assert found.dtype is case.dtype
            luck = torch.finfo(case.dtype).eps / 2 * size.max()
            allowed = 2 * (rival.double() - expected).abs().max() + luck
            assert (found.double() - expected).abs().max() <= allowed


@pytest.mark.parametrize("stride", [(1, 1), (2, 3)], ids=str)
def test_the_gradient_is_the_derivative(stride: Pair) -> None:
    case = Conv(channels=4, rows=6, groups=2, stride=stride, images=1, size=(4, 3), dtype=torch.float64, coats=2)
    x, bias = (one.requires_grad_() for one in case.tensors(normal))
    assert torch.autograd.gradcheck(case.run, (x, bias))


def test_only_x_and_bias_have_a_gradient(on: On) -> None:
    case = Conv()
    mask, theta, (x, bias) = on((case.mask(), case.theta, case.tensors(normal)))
    constant = theta.constant.clone().requires_grad_()
    theta = theta._replace(constant=constant)
    assert not masked_conv2d(x, mask, theta, case.kernel, bias=bias).requires_grad
    y = masked_conv2d(x.requires_grad_(), mask, theta, case.kernel, bias=bias.requires_grad_())
    y.sum().backward()
    assert x.grad is not None
    assert bias.grad is not None
    assert constant.grad is None


def test_weights_are_those_of_packed_weight() -> None:
    """One coat [rows, words], numbers in place of pairs."""
    case = Conv(channels=17, kernel=(3, 3), padding=(1, 1), stride=(2, 2), bias=False)
    x, _ = case.tensors(whole_numbers)
    mask = case.mask()[0]
    weight = packed_weight(mask, (case.rows, 17, 3, 3), case.theta)
    expected = F.conv2d(x, weight, stride=2, padding=1)
    for y in every_path(lambda on: masked_conv2d(*on((x, mask, case.theta)), 3, stride=2, padding=1)):
        assert torch.equal(y, expected)


@pytest.mark.parametrize("channels", [3, 20])
def test_x_is_read_through_its_strides(channels: int) -> None:
    case = Conv(channels=channels, images=2, size=(3, 4), bias=False)
    wide = whole_numbers((2, 6, channels, 8)).permute(0, 2, 1, 3).half()
    for x in (
        wide[:, :, ::2, ::2],
        wide[:1, :, :3, :1].expand(2, -1, -1, 4),
        wide[:, :1, 3:, 4:].expand(-1, channels, -1, -1),
    ):
        expected = case.plain(x, None)
        for y in every_path(lambda on, x=x: case.run(on(x), None)):
            assert torch.equal(y, expected)


@pytest.mark.parametrize("channels", [3, 20])
def test_addresses_of_64_bits(channels: int) -> None:
    with mock.patch.object(module, "_WIDE", 0):  # private: no public way there is short of 2^31 elements
        check_exact(Conv(channels=channels, stride=(2, 1), images=1, dtype=torch.float16))


@pytest.mark.parametrize("kernel", [(1, 1), (2, 2)], ids=str)
def test_infinities_and_nan_pass(kernel: Pair) -> None:
    """As in a dense convolution, where zero times infinity is not a number."""
    case = Conv(channels=20, rows=3, kernel=kernel, bias=False, images=1)
    x, _ = case.tensors(normal)
    x[0, 0, 0, 0], x[0, 1, 2, 0], x[0, 2, 4, 4] = float("inf"), float("-inf"), float("nan")
    every = torch.full((1, 3, 4), -1, dtype=torch.int32)
    dense = theta_plain(case.theta, 3, case.cols).view(3, 20, *kernel)
    for mask, weight in ((every, dense), (case.mask(), case.weight().float())):
        expected = F.conv2d(x, weight, padding=case.padding)
        given = x, mask, case.theta, kernel
        for y in every_path(lambda on, given=given: masked_conv2d(*on(given), padding=case.padding)):
            assert same(y.nan_to_num(1e30, 1e31, -1e31).sign(), expected.nan_to_num(1e30, 1e31, -1e31).sign())
            assert torch.equal(y.isfinite(), expected.isfinite())


@pytest.mark.parametrize("groups", [None, 2])
def test_codes_are_the_edges_tap_by_tap(groups: int | None) -> None:
    taps, channels, rows = 3, 19, 70
    mask, signs = random_words(rows, taps * channels, 1), random_words(rows, taps * channels, 2)
    with path("triton") as on, guarded():
        codes = home(tap_codes(on(mask[None]), on(signs), taps, channels, 2, groups)[0])
    edge = unpack_plain(mask, taps * channels).int() + 2 * unpack_plain(signs, taps * channels).int()
    edge = edge.view(groups or 1, -1, channels, taps)
    # [row, tap, channel], or for the gradient [group and channel, tap, row]
    edge = edge.permute(0, 1, 3, 2).flatten(0, 1) if groups is None else edge.permute(0, 2, 3, 1).flatten(0, 1)
    edge = F.pad(edge, (0, -edge.shape[2] % 32)).flatten(1).unflatten(1, (-1, 8, 2))
    place = 2 * torch.arange(8)[:, None] + 16 * torch.arange(2)
    assert same(codes, (edge.long() << place).sum((2, 3)).to(torch.int32))


def test_codes_are_counted_in_32_bits() -> None:
    mask = torch.empty(1, 1 << 20, 1 << 12, dtype=torch.int32, device="meta")
    with pytest.raises(ValueError, match=r"1048576 rows of 131072 channels .* 8589934592 codes"):
        tap_codes(mask, mask[0], 1, 1 << 17, 4)
