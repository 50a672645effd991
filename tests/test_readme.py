"""The README's Python, run as it stands."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.places import ROOT

BLOCKS = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)


@pytest.mark.parametrize("number", range(len(BLOCKS)))
def test_a_block_runs(number: int, tmp_path: Path) -> None:
    block = BLOCKS[number].replace("resnet50", "resnet18")  # the smaller network shows as much
    code = block if "import supermask" in block else f"import supermask\n{block}"
    script = tmp_path / "block.py"
    script.write_text(f"import sys\nsys.path.insert(0, {str(ROOT)!r})\n{code}")
    done = subprocess.run([sys.executable, script], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    if "supermask.main(recipe)" in block:
        assert (tmp_path / "runs" / "stripes-1" / "ticket.safetensors").exists()
    if "supermask.save" in block:
        assert "searched: 21 layers" in done.stdout
        assert re.search(r"fc +layer 20 \(100, 512\) +51,200 of 51,200", done.stdout)


def test_there_are_blocks() -> None:
    assert len(BLOCKS) == 3
