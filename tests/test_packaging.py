"""What is installed: one top-level name, from the wheel as from the sdist, beside any package called `kernels`.

Installed environments are virtual ones whose other packages are links to those of this one, so nothing is fetched.
"""

import os
import re
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from pathlib import Path

import pytest

from tests.places import ROOT

LIBRARIES = Path(sysconfig.get_path("purelib"))
LEFT_OUT = re.compile(r"supermask|__editable__|kernels\b", re.IGNORECASE)
FOREIGN = 'whose = "another package"\n'
SAY = """
import runpy, sys
import kernels, supermask.kernels.subnet as s
print(kernels.whose, s.__file__)
recipe = sys.argv.pop()
sys.argv += ["--dry-run", "--run.device", "cpu"]
runpy.run_module(recipe, run_name="__main__", alter_sys=True)
"""


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the wheel and the sdist, made from a copy of what git has."""
    folder = tmp_path_factory.mktemp("built")
    clone = folder / "clone"
    run("git", "clone", "--quiet", "--no-hardlinks", ROOT, clone)
    changed = run("git", "-C", ROOT, "diff", "HEAD", "--binary")
    if changed:
        run("git", "-C", clone, "apply", "-", given=changed)
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", folder, clone)
    return folder


def test_both_hold_the_same_package_and_nothing_else(built: Path) -> None:
    with zipfile.ZipFile(only(built, "*.whl")) as wheel:
        installed = {name for name in wheel.namelist() if ".dist-info/" not in name}
    assert {name.partition("/")[0] for name in installed} == {"supermask"}
    expected = {f"supermask/{path.relative_to(ROOT / 'supermask')}" for path in sources(ROOT / "supermask")}
    assert expected <= installed
    left = {name for name in installed - expected if not name.endswith(".so")}
    assert left == {"supermask/py.typed"}, left
    assert not any("/aot" in name for name in installed), "what writes docs is no part of the package"
    with tarfile.open(only(built, "*.tar.gz")) as sdist:
        held = {name.partition("/")[2] for name in sdist.getnames()}
    assert expected <= held
    assert {"supermask/kernels/csrc/native.h", "supermask/kernels/csrc/search.c"} <= held


@pytest.mark.slow
@pytest.mark.parametrize("archive", ["*.whl", "*.tar.gz"])
def test_an_installed_package_has_one_name_and_leaves_kernels_to_others(
    archive: str, built: Path, tmp_path: Path
) -> None:
    python = environment(tmp_path / "fresh")
    others = {path.name for path in LIBRARIES.iterdir()}
    install(python, only(built, archive))
    libraries = Path(run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))").strip())
    names = {path.name for path in libraries.iterdir()} - others
    assert {name for name in names if not name.endswith(".dist-info")} == {"supermask"}

    (libraries / "kernels").mkdir()
    (libraries / "kernels" / "__init__.py").write_text(FOREIGN)
    listed = []
    for folder, recipe in ((tmp_path, "supermask.recipes.digits_ep"), (ROOT, "recipes.digits_ep")):
        told, _, plan = run(python, "-c", SAY, recipe, cwd=folder).partition("\n")
        whose, _, place = told.rpartition(" ")
        assert whose == "another package"
        assert Path(place).is_relative_to(ROOT if folder == ROOT else libraries)
        listed.append(untimed(plan))
    assert listed[0] == listed[1]
    if archive == "*.whl":
        said = "supermask.recipes.digits_ep", "--dry-run", "--run.device", "cpu"
        assert listed[0] == untimed(run(python, "-m", *said, cwd=tmp_path))
    assert "kept edges by layer" in listed[0]


def untimed(plan: str) -> str:
    """A plan without how long it would take, which is timed each time."""
    return "\n".join(line for line in plan.splitlines() if "on this machine" not in line)


def test_the_folder_under_its_bare_name_says_what_to_import(tmp_path: Path) -> None:
    python = environment(tmp_path / "bare")
    for asked in (
        "import kernels; kernels.select",
        "import supermask.kernels, kernels; kernels.select",
    ):
        ended = subprocess.run([python, "-c", asked], cwd=ROOT, capture_output=True, text=True, check=False)
        assert ended.returncode == 1
        last = ended.stderr.strip().splitlines()[-1]
        assert last.startswith("AttributeError: ")
        assert last.endswith("is the package supermask.kernels: import that; sys.path has no other kernels")
    looked = (
        "import importlib.util, kernels; importlib.util.find_spec('kernels'); "
        "print(getattr(kernels, '__version__', None), getattr(kernels, '__file__', None), hasattr(kernels, 'select'))"
    )
    assert run(python, "-c", looked, cwd=ROOT) == "None None False\n"


KERNELS = """
import torch
from supermask.kernels.select import select
from supermask.kernels.subnet import subnet
from supermask.kernels.base.theta import Theta
import benchmarks.aot.cases, benchmarks.gpu.__main__
import supermask

layer = supermask.SupermaskLinear(40, 3, seed=0, remaining=0.25)
layer(torch.ones(2, 40)).sum().backward()
model = supermask.convert(supermask.MLP([8, 16, 2]), seed=1)
optimiser = supermask.ScoreSGD(model, lr=0.1)
with optimiser.searching():
    model(torch.ones(4, 8)).sum().backward()
optimiser.step()
for name, package in (("Recipe", "tyro"), ("save", "constriction")):
    try:
        getattr(supermask, name)
    except ModuleNotFoundError as error:
        assert error.name == package, error
    else:
        raise AssertionError(f"{name} came without {package}")
print("worked")
"""


def test_layers_ops_and_their_benchmarks_need_neither_tyro_nor_constriction(tmp_path: Path) -> None:
    python = environment(tmp_path / "bare", without=("tyro", "constriction"))
    assert run(python, "-c", KERNELS, cwd=ROOT) == "worked\n"


def environment(folder: Path, without: tuple[str, ...] = ()) -> Path:
    """The Python of a fresh environment with this one's packages, but for supermask, kernels and those `without`."""
    run(sys.executable, "-m", "venv", "--without-pip", folder)
    libraries = folder / LIBRARIES.relative_to(sys.prefix)
    for path in LIBRARIES.iterdir():
        if not LEFT_OUT.search(path.name) and not path.name.lower().startswith(without or ("\0",)):
            (libraries / path.name).symlink_to(path)
    return folder / "bin" / "python"


def install(python: Path, archive: Path) -> None:
    options = "--no-deps", "--no-index", "--no-build-isolation", "--quiet"
    run(sys.executable, "-m", "pip", "--python", python, "install", *options, archive)


def only(folder: Path, pattern: str) -> Path:
    (found,) = folder.glob(pattern)
    return found


def sources(folder: Path) -> list[Path]:
    """The modules of a package, through its links."""
    return [
        Path(top) / name for top, _, names in os.walk(folder, followlinks=True) for name in names if name[-3:] == ".py"
    ]


def run(*command: str | Path, cwd: Path | None = None, given: str | None = None) -> str:
    environ = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "TRITON_INTERPRET")}
    done = subprocess.run(
        list(map(str, command)), cwd=cwd, env=environ, input=given, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr + done.stdout
    return done.stdout
