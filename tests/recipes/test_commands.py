"""Commands of README.md, docs/ and the recipes' own docstrings: each is one that works."""

import re
import shlex
from pathlib import Path

import pytest

from tests.places import ROOT
from tests.recipes.command import run

PAGES = [ROOT / "README.md", *(ROOT / "docs").glob("*.md"), *(ROOT / "recipes").glob("*.py")]
COMMAND = re.compile(r"python3? -m (recipes\.[a-z]\w*)((?:[ \t]+(?:\\\n[ \t]*)?[^\s`\\]+)*)")
NARROW = ["--network.name", "resnet18", "--network.arguments", "width", "0.125"]
SMALL = {  # what else takes seconds to draw, or a step of it; a bare command of CIFAR-10's is as it stands
    r"recipes\.imagenet.*": NARROW,
    r"recipes\.(cifar|svhn)\w* .*|.*digits32.*": NARROW,
    r"recipes\.layerwise": ["--networks", "mlp", "--lrs", "0.1"],
}


def commands() -> list[str]:
    """Each once; a sentence's end is no argument."""
    found = set()
    for page in PAGES:
        for module, arguments in COMMAND.findall(page.read_text()):
            given = [argument.rstrip(".,;:)") for argument in shlex.split(arguments.replace("\\\n", " "))]
            found.add(shlex.join([module, *given]))
    return sorted(found)


def nets() -> str:
    """The module that docs/recipes.md has as nets.py."""
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "recipes.md").read_text(), re.DOTALL)
    return next(block for block in blocks if "@supermask.register" in block)


def test_there_are_commands() -> None:
    assert {"recipes.digits soft-iep", "recipes.figure4a", "recipes.imagenet_soft_iep --data.root DIR"} <= set(
        commands()
    )
    assert any("--training.tail 5" in command for command in commands())


def small_for(command: str) -> list[str]:
    """Options for what takes long, and says as much in small."""
    return next((options for pattern, options in SMALL.items() if re.fullmatch(pattern, command)), [])


@pytest.mark.parametrize("command", commands())
def test_a_command_of_the_docs_works(command: str, tmp_path: Path) -> None:
    module, *arguments = shlex.split(command)
    small = [] if "--network.name" in arguments else small_for(command)
    own = {"nets.py", "__pycache__"} if "--import" in arguments else set()
    if own:
        (tmp_path / "nets.py").write_text(nets())
    done = run(module, *arguments, *small, "--dry-run", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "steps in all" in done.stdout
    assert {path.name for path in tmp_path.iterdir()} <= own
