"""The Python of README.md and of the pages for users, run as it stands; links of all pages lead somewhere."""

import re
from pathlib import Path

import pytest

from tests.places import ROOT
from tests.recipes.command import run
from tests.recipes.test_commands import nets

PAGES = ("README.md", "docs/analysis.md", "docs/layers.md", "docs/recipes.md")
# docs/methods.md: tests/supermask/methods/test_adding.py
BLOCKS = [block for page in PAGES for block in re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(), re.DOTALL)]
EVERY_PAGE = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])


@pytest.mark.parametrize("number", range(len(BLOCKS)))
def test_a_block_runs(number: int, tmp_path: Path) -> None:
    block = BLOCKS[number].replace("resnet50", "resnet18")  # the smaller network shows as much
    code = block if "import supermask" in block else f"import supermask\n{block}"
    (tmp_path / "nets.py").write_text(nets())
    (tmp_path / "block.py").write_text(code)
    done = run("block", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    if "supermask.main(recipe)" in block:
        assert (tmp_path / "runs" / "stripes-1" / "ticket.safetensors").exists()
    if "import nets" in block:
        assert (tmp_path / "runs" / "digits_cnn-1" / "ticket.safetensors").exists()
        assert done.stdout.count("SupermaskConv2d(") == 2
    if "supermask.save" in block:
        assert "searched: 21 layers" in done.stdout
        assert re.search(r"fc +layer 20 \(100, 512\) +51,200 of 51,200", done.stdout)
    if "supermask.compare" in block:
        assert (tmp_path / "accuracy.pdf").read_bytes().startswith(b"%PDF")
        assert "Three pairs: the sign-flip test cannot give less than 0.25;" in done.stdout
        assert "(at 3.12 and 3.12 % remaining)" not in done.stdout
        assert re.search(r"^soft iEP - EP: accuracy [+-]0\.", done.stdout, re.MULTILINE)
        assert re.search(r"^0\.\d+ of the edges in common, 0\.03 by chance$", done.stdout, re.MULTILINE)


def test_there_are_blocks() -> None:
    assert len(BLOCKS) == 9


@pytest.mark.parametrize("page", EVERY_PAGE, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\(([^)\s#]+)[^)]*\)", page.read_text())
    assert [link for link in links if "://" not in link and not (page.parent / link).exists()] == []


def test_the_front_page_is_short() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= 130
