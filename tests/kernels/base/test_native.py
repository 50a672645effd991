"""The C extension: built where it can be, chosen by the environment, run on any number of threads."""

import ctypes
import importlib
import shutil
import subprocess
import sysconfig
from pathlib import Path

import numpy as np
import pytest
import torch

from supermask.kernels.base import native
from supermask.kernels.base.launch import cpu_path

CSRC = Path(native.__file__).parents[1] / "csrc"
FLAGS = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""


def test_it_is_there_where_it_can_be() -> None:
    """Installing goes on without it whatever the compiler says, so the tests must not."""
    compiler = shutil.which((sysconfig.get_config_var("CC") or "cc").split()[0])
    if compiler and all(flag in FLAGS.split() for flag in ("avx512f", "avx512bw", "avx512dq", "avx512vl")):
        assert not isinstance(native.library(), str), native.library()
    else:
        assert isinstance(native.library(), str)


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


@pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler")
def test_it_compiles_for_other_processors(tmp_path: Path) -> None:
    """There it says that it is not supported."""
    for source in CSRC.glob("*.[ch]"):
        text = source.read_text()
        (tmp_path / source.name).write_text(text.replace("#if defined(__x86_64__)", "#if 0 && defined(__x86_64__)"))
    sources = sorted(map(str, tmp_path.glob("*.c")))
    subprocess.run(["cc", "-fPIC", "-shared", "-Werror", *sources, "-o", tmp_path / "x.so"], check=True)
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


@pytest.mark.skipif(not list(CSRC.glob("_native*")), reason="the extension was not built")
@pytest.mark.parametrize("more", [[], ["one", "another"]])
def test_an_extension_of_other_sources_is_not_used(more: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    names = [*(native.LAYER.names or ())][1:] + more
    monkeypatch.setattr(native, "LAYER", np.dtype([(name, np.int64) for name in names]))
    found = native.library.__wrapped__()
    size = native.LAYER.itemsize
    assert found == f"the extension is of other sources (its layer_t has 160 bytes, not {size}): install again"
    monkeypatch.setattr(native, "library", lambda: found)
    assert native.why_not() == found
    assert not native.usable()
