"""When an op is called as the plain function it is; a torch that does not tell only makes it slower."""

from collections.abc import Iterator

import pytest
import torch

from supermask.kernels.base import launch
from supermask.kernels.base.bits import pack, popcount
from tests.kernels.paths import pack_plain, random_mask

NAMES = [
    "torch._C._is_tracing",
    "torch._C._len_torch_dispatch_stack",
    "torch._C._len_torch_function_stack",
    "torch._C._functorch.maybe_current_level",
    "torch._C._functorch",
    "torch.autograd.forward_ad._current_level",
]


@pytest.fixture
def undecided() -> Iterator[None]:
    """What torch tells is found out within the test, and again after it."""
    launch.watcher.cache_clear()
    yield
    launch.watcher.cache_clear()


def test_this_torch_tells(undecided: None) -> None:
    assert launch.watcher() is not None
    assert launch.unwatched(torch.zeros(1), None)


@pytest.mark.parametrize("name", NAMES)
def test_a_torch_that_lacks_a_name_takes_the_op_itself(
    name: str, monkeypatch: pytest.MonkeyPatch, undecided: None
) -> None:
    mask = random_mask(5, 130, 0.4, 0)
    with monkeypatch.context() as patch:  # torch needs them, so they are back before an op runs
        patch.delattr(name)
        assert not launch.unwatched(mask)
    assert not launch.unwatched(mask)
    packed = pack(mask)
    assert torch.equal(packed, pack_plain(mask))
    assert torch.equal(popcount(packed), mask.sum(1))


def test_whatever_watches_is_seen() -> None:
    x = torch.zeros(2)
    with torch.device("cpu"):  # a default device
        assert not launch.unwatched(x)
    with torch.autograd.forward_ad.dual_level():
        assert not launch.unwatched(x)
    seen: list[bool] = []
    torch.func.vmap(lambda row: (seen.append(launch.unwatched(x)), row)[1])(x)
    torch.jit.trace(lambda row: (seen.append(launch.unwatched(x)), row + 1)[1], x)
    assert seen
    assert not any(seen[:2])
    assert launch.unwatched(x)
