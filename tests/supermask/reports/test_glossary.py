"""The page and the document say the same of a term, and every measure of the page has one."""

import re

from supermask.reports.glossary import TERMS
from supermask.reports.page import MEASURES
from tests.places import ROOT


def test_the_document_has_each_term_with_its_sentence() -> None:
    found = dict(re.findall(r"^\| ([a-z ]+) \| (.*?) \| ", (ROOT / "docs" / "glossary.md").read_text(), re.MULTILINE))
    assert found.pop("term") == "what it means"
    assert found == TERMS


def test_the_columns_of_the_page_are_explained() -> None:
    explained = " ".join(TERMS)
    for column in MEASURES:
        if not column.startswith("accuracy"):
            assert column.removesuffix(" (%)").removesuffix("s") in explained
