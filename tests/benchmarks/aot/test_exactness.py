"""In compiled code: kernels that promise bits add nothing atomically that rounds, and no kernel multiplies in TF32."""

import json
import re
import textwrap
from pathlib import Path

import pytest

from benchmarks.aot.stored import newest, of_installed
from tests.benchmarks.aot.alone import run_alone

# A sum in an order that varies rounds in as many ways. Integers do not round, and are added so.
ROUNDING = re.compile(r"\b(?:atom|red)\.\S*\.(?:b?f16x?2?|f32|f64)\b|\batomic_rmw f(?:add|min|max)\b")
TF32 = re.compile(r"tf32", re.IGNORECASE)

COMPILE = """
    import json
    import sys

    from benchmarks.aot import compile as aot
    from benchmarks.aot.cases import CASES

    found = []


    def keep(binary, target, log):
        found.append((binary.src.fn.__name__, binary.asm["ptx"], binary.asm["ttir"]))


    aot.resources_of = keep
    for name, case in CASES.items():
        if not name.startswith("masked_"):
            aot.compile_through(case, "sm_90")
    json.dump(found, sys.stdout)
"""


@pytest.mark.slow
def test_exact_kernels_add_atomically_what_does_not_round(tmp_path: Path) -> None:
    """Products are left out: their sums are held to errors, and docs/resources says that they have no TF32."""
    script = tmp_path / "compile.py"
    script.write_text(textwrap.dedent(COMPILE))
    done = run_alone(tmp_path / "cache", str(script))
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    names = {name for name, _, _ in found}
    assert names >= {"_select_count_kernel", "_score_step_kernel", "_subnet_kernel", "_packed_weight_kernel"}
    assert [(name, code) for name, *codes in found for code in codes if ROUNDING.search(code)] == []
    assert [name for name, *codes in found if any(TF32.search(code) or "wgmma" in code for code in codes)] == []
    atomic = {name for name, ptx, _ in found if re.search(r"\b(?:atom|red)\.", ptx)}
    assert {"_select_count_kernel", "_score_step_kernel"} <= atomic  # so that the search looks at what there is


@pytest.mark.parametrize(
    ("code", "rounds"),
    [
        ("red.relaxed.gpu.global.add.f32 [%rd1], %f1;", True),
        ("atom.global.gpu.acq_rel.add.noftz.bf16x2 %r1, [%rd1], %r2;", True),
        ("tt.atomic_rmw fadd, acq_rel, gpu, %1, %2, %3", True),
        ("atom.global.gpu.relaxed.add.u64 %rd1, [%rd2], %rd3;", False),
        ("add.f32 %f1, %f2, %f3;", False),
        ("tt.atomic_rmw add, relaxed, gpu, %1, %2, %3", False),
    ],
)
def test_what_rounds_is_told(code: str, rounds: bool) -> None:
    assert (ROUNDING.search(code) is not None) == rounds


def test_no_kernel_multiplies_in_tf32() -> None:
    """In the committed tables, which other tests hold to what compiling gives."""
    for stored in filter(None, (newest(), of_installed())):
        kinds = {row["matrix_kind"] for row in stored.rows}
        assert {kind for kind in kinds if re.search("TF32|xf32", kind, re.IGNORECASE)} == set()
        multiplying = {row["kernel"] for row in stored.rows if row["matrix"]}
        assert multiplying == {"masked_mm", "masked_mm_backward", "masked_conv2d"}
