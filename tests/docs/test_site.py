"""The site that mkdocs makes of these pages: every page is in it, every public name is described in one place, and all
Python in it is run by a test."""

import re

import supermask
from tests.places import ROOT
from tests.test_readme import PAGES

DOCS = ROOT / "docs"
SITE = (ROOT / "mkdocs.yml").read_text()
API = sorted((DOCS / "api").glob("*.md"))
ELSEWHERE = {"docs/methods.md", "docs/kernels.md", "docs/your-own.md"}
"""Run by tests/supermask/methods/test_adding.py, tests/kernels/test_guide.py and tests/recipes/test_your_own.py."""


def test_every_page_is_in_the_navigation() -> None:
    pages = [str(page.relative_to(DOCS)) for page in DOCS.rglob("*.md")]
    assert sorted(re.findall(r"^ *- (\S+\.md)$", SITE, re.MULTILINE)) == sorted(pages)


def test_every_public_name_has_its_place() -> None:
    text = "\n".join(page.read_text() for page in API)
    assert sorted(re.findall(r"^::: supermask\.(\w+)$", text, re.MULTILINE)) == sorted(supermask.__all__)


def test_all_python_is_run() -> None:
    pages = [ROOT / "README.md", *DOCS.rglob("*.md")]
    found = {str(page.relative_to(ROOT)) for page in pages if "```python\n" in page.read_text()}
    assert found == {*PAGES, *ELSEWHERE}
