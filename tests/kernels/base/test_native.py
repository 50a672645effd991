"""The C extension: built where it can be, chosen by the environment, run on any number of threads."""

import ctypes
import importlib
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from supermask.kernels.base import native
from supermask.kernels.base.launch import cpu_path
from supermask.kernels.base.philox import sign_words
from supermask.kernels.base.theta import Theta
from supermask.kernels.masked_mm import masked_mm
from supermask.kernels.masked_mm.codes import interleave
from supermask.kernels.packed_weight import packed_weight
from supermask.kernels.packed_weight.op import fill_weights
from supermask.kernels.score_step import score_step
from supermask.kernels.score_step.op import NO_BRACKET
from supermask.kernels.select import select
from supermask.kernels.subnet import subnet
from tests.kernels.paths import path, random_reals, same

CSRC = Path(native.__file__).parents[1] / "csrc"
FLAGS = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
NO_AVX512 = "this processor has no AVX-512 (F, BW, DQ, VL)"


@pytest.fixture
def built() -> None:
    """Installing goes on without the extension whatever the compiler says, so the tests must not."""
    if not list(CSRC.glob("_native*.so")):
        pytest.fail(f"{CSRC} has no _native*.so: with a C compiler, python -m pip install -e . builds the C extension")


@pytest.fixture
def compiler() -> str:
    found = shutil.which("cc")
    if found is None:
        pytest.fail("there is no C compiler cc: apt-get install gcc, or set up one that goes by this name")
    return found


@pytest.mark.usefixtures("built")
def test_it_is_used_where_the_processor_can(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SUPERMASK_KERNELS", raising=False)
    if all(flag in FLAGS.split() for flag in ("avx512f", "avx512bw", "avx512dq", "avx512vl")):
        assert native.why_not() is None
        assert native.usable()
        assert cpu_path() == "native"
    else:
        assert native.why_not() == native.library() == NO_AVX512
        assert not native.usable()
        assert cpu_path() == "torch"
        with pytest.raises(RuntimeError, match=r"sm_select is a function of the C extension: this processor has no"):
            native.call("sm_select", "pliifff")


def every_op() -> list[Tensor]:
    """What each op that has native code gives, of a layer."""
    scores, theta = random_reals((33, 150), 1), Theta(7, 3, 0, torch.tensor([0.5]))
    kept, grad = torch.tensor([1500]), random_reals((33, 150), 2)
    threshold = select([scores], kept, [None])
    weight, mask = subnet(scores.requires_grad_(), threshold, theta)
    (dscores,) = torch.autograd.grad(weight, scores, grad)
    again = packed_weight(mask, scores.shape, theta)
    filled = fill_weights(torch.empty(33, 150), mask[None], theta.constant, sign_words(7, 3, 33, 150))
    codes = interleave(mask, sign_words(7, 3, 33, 150), 150)
    y = masked_mm(random_reals((2, 150), 3), mask, theta, codes=codes)
    stepped, momentum = scores.detach().clone(), torch.full_like(grad, -0.0)
    brackets = torch.tensor([NO_BRACKET], dtype=torch.int32)
    after = score_step([stepped], [grad], [momentum], [None], [theta], kept, brackets, lr=0.1, momentum=0.9)
    return [*threshold, weight.detach(), mask, dscores, again, filled, y, stepped, momentum, *after]


def test_where_it_is_not_used_every_op_takes_the_other_path(monkeypatch: pytest.MonkeyPatch) -> None:
    with path("torch"):
        expected = every_op()
    monkeypatch.delenv("SUPERMASK_KERNELS", raising=False)
    monkeypatch.setattr(native, "library", lambda: NO_AVX512)
    monkeypatch.setattr(native, "call", lambda name, *_: pytest.fail(f"{name} was called"))
    assert native.why_not() == NO_AVX512
    assert all(map(same, every_op(), expected))


@pytest.mark.parametrize(("choice", "path"), [("torch", "torch"), ("triton", "triton"), ("native", None)])
def test_the_environment_chooses(choice: str, path: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SUPERMASK_KERNELS", choice)
    assert cpu_path() == (path or ("torch" if isinstance(native.library(), str) else "native"))
    assert native.usable() == (cpu_path() == "native")
    if path:
        assert native.why_not() == f"SUPERMASK_KERNELS={choice}"


def test_an_unknown_choice_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SUPERMASK_KERNELS", "c")
    with pytest.raises(ValueError, match="SUPERMASK_KERNELS='c': expected 'native', 'torch' or 'triton'"):
        cpu_path()
    with pytest.raises(ValueError, match="SUPERMASK_KERNELS='c': expected"):
        native.why_not()
    with pytest.raises(ValueError, match="SUPERMASK_KERNELS='c': expected"):
        native.usable()


def test_it_compiles_for_other_processors(compiler: str, tmp_path: Path) -> None:
    """There it says that it is not supported."""
    for source in CSRC.glob("*.[ch]"):
        text = source.read_text()
        (tmp_path / source.name).write_text(text.replace("#if defined(__x86_64__)", "#if 0 && defined(__x86_64__)"))
    sources = sorted(map(str, tmp_path.glob("*.c")))
    subprocess.run([compiler, "-fPIC", "-shared", "-Werror", *sources, "-o", tmp_path / "x.so"], check=True)
    assert ctypes.CDLL(str(tmp_path / "x.so")).sm_supported() == 0


def test_an_extension_that_is_not_built_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(native, "__file__", str(tmp_path / "base" / "native.py"))
    assert "was not built" in str(native.library.__wrapped__())
    (tmp_path / "csrc").mkdir()
    (tmp_path / "csrc" / "_native.so").write_bytes(b"not a library")
    importlib.invalidate_caches()
    assert "does not load" in str(native.library.__wrapped__())


def test_it_takes_one_thread_where_there_is_no_way_to_more(monkeypatch: pytest.MonkeyPatch) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        assert native.threads() == (1 if native.parallel_entry() is None else 2)
        monkeypatch.setattr(ctypes, "CDLL", lambda name: object())  # a process that has no GOMP_parallel
        native.parallel_entry.cache_clear()
        assert native.threads() == 1
    finally:
        native.parallel_entry.cache_clear()
        torch.set_num_threads(before)


@pytest.mark.usefixtures("built")
@pytest.mark.parametrize("more", [[], ["one", "another"]])
def test_an_extension_of_other_sources_is_not_used(more: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    built = native.LAYER.itemsize
    names = [*(native.LAYER.names or ())][1:] + more
    monkeypatch.setattr(native, "LAYER", np.dtype([(name, np.int64) for name in names]))
    found = native.library.__wrapped__()
    size = native.LAYER.itemsize
    assert found == f"the extension is of other sources (its layer_t has {built} bytes, not {size}): install again"
    monkeypatch.setattr(native, "library", lambda: found)
    assert native.why_not() == found
    assert not native.usable()
