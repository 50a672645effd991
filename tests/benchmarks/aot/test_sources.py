"""The digest of a case changes with everything that its rows depend on, and with nothing else."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from benchmarks.aot import sources
from benchmarks.aot.cases import CASES
from benchmarks.aot.sources import KERNELS, digest, files_of
from supermask.kernels.base.launch import launcher


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """The folder of the kernels, to be changed."""
    return Path(shutil.copytree(KERNELS.resolve(), tmp_path / "kernels", ignore=shutil.ignore_patterns("*.so")))


def _digests(root: Path) -> dict[str, str]:
    return {name: digest(call, root) for name, call in CASES.items()}


def _change(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert text.count(old) == 1
    path.write_text(text.replace(old, new))


def test_a_copy_has_the_digests_of_the_original(copy: Path) -> None:
    assert _digests(copy) == _digests(KERNELS)
    assert len(set(_digests(copy).values())) == len(CASES)


def test_a_kernel_changes_the_digests_of_the_cases_that_start_it(copy: Path) -> None:
    before = _digests(copy)
    _change(copy / "masked_conv2d" / "gpu.py", "y = total * (tl.load(constant_ptr) * 0.5)", "y = total * 0.5")
    after = _digests(copy)
    assert {name for name in CASES if before[name] != after[name]} == {"masked_conv2d"}


def test_a_helper_of_many_kernels_changes_the_digests_of_all_of_them(copy: Path) -> None:
    before = _digests(copy)
    _change(copy / "base" / "tile.py", "place = 14 - 2 * tl.arange(0, 8)[None, None, :]\n", "place = 14\n")
    after = _digests(copy)
    assert {"masked_mm", "masked_conv2d"} <= {name for name in CASES if before[name] != after[name]}
    assert before["bits"] == after["bits"]


def test_what_reads_machine_code_changes_every_digest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = _digests(KERNELS)
    readers = Path(shutil.copytree(Path(sources.__file__).parent, tmp_path / "aot"))
    monkeypatch.setattr(sources, "__file__", str(readers / "sources.py"))
    assert _digests(KERNELS) == before
    _change(readers / "code.py", 'name != "s_nop"', 'name != "nop"')
    assert all(before[name] != after for name, after in _digests(KERNELS).items())


@pytest.mark.parametrize("call", CASES.values(), ids=CASES)
def test_every_file_that_launches_or_is_launched_counts(call: Callable[[], object]) -> None:
    """Whatever a case names, the files of the kernels it starts, and of what these call, are among its files."""
    started: list[Any] = []
    with launcher(lambda kernel, grid, args, meta: started.append(kernel)):
        call()
    files = {path.resolve() for path in files_of(call)}
    for kernel in started:
        own = Path(kernel.fn.__code__.co_filename)
        assert own.resolve() in files
        called = (kernel.fn.__globals__.get(name) for name in kernel.fn.__code__.co_names)
        functions = (value.fn for value in called if hasattr(value, "fn"))
        assert {Path(function.__code__.co_filename).resolve() for function in functions} <= files
