"""The table of families, as a command."""

import argparse
import sys
from importlib.metadata import version
from pathlib import Path

import torch

from tests.families import __doc__ as about
from tests.families.by_name import faults
from tests.families.cases import cases
from tests.families.check import checked, table

PACKAGES = ("torchvision", "timm", "transformers")
HEAD = """# Networks of other packages

One small network a family: converted at half of its edges, stepped once, saved, loaded into a network that was built
anew; the logits are equal to the bit. What is left keeps its tensors, frozen; what was said are the warnings of
`supermask.convert` and of the first step. `python -m tests.families --write docs/networks.md` made this, with
{versions}.

"""


def main() -> int:
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("packages", nargs="*", default=PACKAGES, help="which; all by default")
    parser.add_argument("--write", type=Path, help="write the table here")
    options = parser.parse_args()
    torch.set_num_threads(1)  # of networks so small a second thread mostly waits
    rows = [checked(case) for package in options.packages for case in cases(package)]
    versions = ", ".join(f"{package} {version(package)}" for package in ("torch", *options.packages))
    text = HEAD.format(versions=versions) + table(rows)
    if options.write:
        options.write.write_text(text)
    print(text)
    wrong = [row.name for row in rows if row.wrong]
    print(f"{len(rows)} networks, {len(wrong)} did not come back{': ' if wrong else ''}{', '.join(wrong)}")
    by_name = [fault for package in options.packages for fault in faults(package)]
    print(f"by their names: {len(by_name)} faults", *by_name, sep="\n")
    return len(wrong) + len(by_name) > 0


if __name__ == "__main__":
    sys.exit(main())
