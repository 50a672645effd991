"""`--import MODULE`: taken out of the command line, imported first, and told in a sentence where that fails."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from supermask.networks.registry import BUILDERS
from supermask.runs.imports import IMPORTED, ImportFailed, parsed, take
from tests.recipes.command import run
from tests.supermask.runs.own_networks import write_nets


@pytest.fixture(autouse=True)
def as_before(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Modules, folders and networks of this process are what they were."""
    builders, modules, imported = dict(BUILDERS), set(sys.modules), list(IMPORTED)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield
    for name in set(sys.modules) - modules:
        del sys.modules[name]
    BUILDERS.clear()
    BUILDERS.update(builders)
    IMPORTED[:] = imported


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_imports_are_taken_out_of_the_command_line(here: Path) -> None:
    for name in ("first_of_mine", "second_of_mine"):
        write_nets(here, name, "")
    write_nets(here / "lab", "third_of_mine", "")
    given = ["--import", "first_of_mine", "verify", "--import=lab.third_of_mine", "x", "--json", "--import",
             "second_of_mine", "--import", "first_of_mine"]  # fmt: skip
    assert parsed(lambda rest: rest, given) == ["verify", "x", "--json"]
    assert IMPORTED[-3:] == ["first_of_mine", "lab.third_of_mine", "second_of_mine"]
    assert {"first_of_mine", "second_of_mine", "lab.third_of_mine"} <= set(sys.modules)


def test_the_working_directory_comes_first_once(here: Path) -> None:
    write_nets(here, "colorsys", "MINE = True\n")
    sys.modules.pop("colorsys", None)
    take("colorsys")
    take("colorsys")
    assert sys.modules["colorsys"].MINE
    assert sys.path.count(str(here)) == 1


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (
            "import no_module_at_all\n",
            r"raises ModuleNotFoundError: .*'no_module_at_all' .*mine.py, line 1",
        ),
        ("\n1 / 0\n", r"raises ZeroDivisionError: division by zero \(.*wrong_of_mine.py, line 2\)"),
        ("def f(:\n", r"raises SyntaxError: .*wrong_of_mine.py, line 1\)"),
        ("import sys; sys.exit('left')\n", r"raises SystemExit: left"),
        ("import supermask\nsupermask.register('mlp', print)\n", "raises ValueError: the name 'mlp' is taken by"),
    ],
)
def test_a_module_that_raises(text: str, says: str, here: Path) -> None:
    write_nets(here, "wrong_of_mine", text)
    with pytest.raises(ImportFailed, match=f"^--import wrong_of_mine: it {says}"):
        take("wrong_of_mine")


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("nowhere_at_all", "no module is called 'nowhere_at_all': looked for in {here}, "),
        ("nowhere_at_all.nets", "no module is called 'nowhere_at_all': looked for in {here}, "),
        ("lab.nowhere", "no module is called 'lab.nowhere': looked for in {here}, "),
        ("lab/nets.py", "that is no module's name: give its name as imports have it, lab.nets"),
        ("./nets.py", "that is no module's name: give its name as imports have it, nets"),
        ("nets of mine", "that is no module's name"),
        ("", "that is no module's name"),
    ],
)
def test_a_module_that_is_not_there(name: str, says: str, here: Path) -> None:
    write_nets(here / "lab", "nets", "")
    with pytest.raises(ImportFailed) as caught:
        take(name)
    assert str(caught.value).startswith(f"--import {name}: {says.format(here=here)}")


@pytest.mark.parametrize("given", [["--import"], ["--import", "--json"]])
def test_a_module_is_named(given: list[str]) -> None:
    with pytest.raises(ImportFailed, match="name a module after it"):
        parsed(lambda rest: rest, given)


@pytest.mark.parametrize("module", ["supermask", "recipes.digits", "recipes.figure3", "recipes.digits_ep"])
def test_every_command_takes_it_and_says_so(module: str, here: Path) -> None:
    done = run(module, "--help", cwd=here)
    assert done.returncode == 0, done.stderr
    assert "--import MODULE" in done.stdout
    done = run(module, "--import", "nowhere_at_all", cwd=here)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert done.stderr.startswith(
        f"--import nowhere_at_all: no module is called 'nowhere_at_all': looked for in {here}"
    )
    assert not list(here.iterdir())


def test_a_ticket_needs_the_import_and_names_no_code(here: Path) -> None:
    module = write_nets(here)
    options = "--network.name", "mine/cnn", "--data.layout", "image", "--training.epochs", 1, "--run.folder", "run"
    asked = "--import", module
    done = run("recipes.digits_ep", *options, cwd=here)
    assert done.returncode == 2
    assert "no architecture is called 'mine/cnn'" in done.stderr
    assert not (here / "run").exists()
    done = run("recipes.digits_ep", *asked, *options, cwd=here)
    assert done.returncode == 0, done.stderr
    ticket = here / "run" / "ticket.safetensors"
    assert module.encode() not in ticket.read_bytes()
    config = json.loads((here / "run" / "config.json").read_text())["recipe"]
    assert config["network"] == {"name": "mine/cnn", "arguments": {"num_classes": 10}}
    assert config["code"]["builder"]["type"] == f"{module}.Cnn"
    for command in (["verify", ticket], ["eval", ticket, "--data", "digits"]):
        refused, done = run("supermask", *command, cwd=here), run("supermask", *asked, *command, cwd=here)
        assert done.returncode == 0, done.stderr
        assert refused.returncode == 2
        assert "--import MODULE" in refused.stderr
