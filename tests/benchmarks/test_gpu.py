"""What a GPU would run, here interpreted and tiny: the comparison with the CPU's results, and that it can fail."""

import pytest
import torch
from torch import Tensor

from benchmarks import _gpu_checks as checks
from benchmarks import gpu
from benchmarks._gpu_checks import Case

CPU = torch.device("cpu")
pytestmark = pytest.mark.usefixtures("interpreted")


@pytest.mark.slow
def test_every_kernel_agrees_with_the_cpu() -> None:
    done = checks.check_all(CPU, ((3, 130),), batches=(2,), sizes=(4,), channels=4)
    assert len(done) == 4


@pytest.mark.parametrize("name", checks.EXACT)
def test_one_wrong_bit_is_seen(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    right = checks.EXACT[name]
    calls = []

    def wrong(case: Case) -> list[Tensor]:
        found = right(case)
        calls.append(case)
        if len(calls) == 1:
            bytes_ = found[-1].view(torch.uint8).clone()
            bytes_.view(-1)[-1] ^= 1
            found[-1] = bytes_.view(found[-1].dtype)
        return found

    monkeypatch.setitem(checks.EXACT, name, wrong)
    with pytest.raises(RuntimeError, match=rf"{name}, result \d+, 2 x 33: 1 bytes differ"):
        checks.check_exact(name, Case(device=CPU, rows=2, cols=33))


def test_a_product_may_err_twice_as_much_as_pytorch() -> None:
    truth = torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64)
    theirs, found = truth.float() + 0.1, truth.float() + 0.19
    checks._within("product", found, theirs, truth)
    with pytest.raises(RuntimeError, match="product errs by"):
        checks._within("product", truth.float() + 0.21, theirs, truth)
    with pytest.raises(RuntimeError, match="product errs by"):
        checks._within("product", torch.full((3,), torch.nan), theirs, truth)


@pytest.mark.slow
def test_everything_is_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu, "RESNET18", [(4, 3, 3, 3), (10, 16)])
    monkeypatch.setattr(gpu, "CONVOLUTIONS", ((4, 4, 1), (4, 4, 3)))
    monkeypatch.setattr(gpu, "CALLS", 1)
    options = gpu.GpuOptions(width=64, batches=(2,), images=1, rounds=1)
    found = gpu.comparisons(options, CPU)
    assert {one.base for one in found} == {"dense bf16", "select", "torch.optim.SGD"}
    assert [len(one.seconds) for one in found] == [3, 2, 2, 3, 2]


def test_without_a_gpu_it_says_so() -> None:
    (reason,) = gpu.run(gpu.GpuOptions(device="cpu")).skipped
    assert "no kernel checked" in reason
