"""The table of families, as a command."""

import argparse
import multiprocessing
import os
import sys
from importlib.metadata import version
from pathlib import Path

from tests.families import __doc__ as about
from tests.families.cases import cases
from tests.families.check import checked_by_name, table

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
    places = [(package, number) for package in options.packages for number in range(len(cases(package)))]
    context = multiprocessing.get_context("spawn")
    workers = len(os.sched_getaffinity(0))
    with context.Pool(workers, maxtasksperchild=4) as pool:  # so that no process grows by all networks
        rows = pool.starmap(checked_by_name, places, chunksize=1)
    versions = ", ".join(f"{package} {version(package)}" for package in ("torch", *options.packages))
    text = HEAD.format(versions=versions) + table(rows)
    if options.write:
        options.write.write_text(text)
    print(text)
    wrong = [row.name for row in rows if row.wrong]
    print(f"{len(rows)} networks, {len(wrong)} did not come back{': ' if wrong else ''}{', '.join(wrong)}")
    return len(wrong) > 0


if __name__ == "__main__":
    sys.exit(main())
