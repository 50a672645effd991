"""Reading machine code: jumps, loops, what an instruction is for; and the bound on occupancy."""

import pytest

from benchmarks.aot.code import Instruction, loops, main_loop, matrix_kinds, read_amdgcn, read_sass
from benchmarks.aot.limits import occupancy

# A loop over k (0x30 to 0x80) in one over rows (0x20 to 0x90); the wait of the inner one stands behind the end.
SASS = """
	code for sm_90
		Function : _product_kernel
	.headerflags	@"EF_CUDA_TEXMODE_UNIFIED"
        /*0000*/                   S2R R0, SR_TID.X ;                              /* 0x0000000000007919 */
                                                                                   /* 0x000e2e0000002100 */
        /*0010*/              @!P0 EXIT ;                                          /* 0x0000000000007919 */
        /*0020*/                   IADD3 R1, R1, 0x1, RZ ;                         /* 0x0000000000007919 */
        /*0030*/                   LDS.128 R4, [R2] ;                              /* 0x0000000000007919 */
        /*0040*/                   LOP3.LUT R4, R4, R5, RZ, 0xc0, !PT ;            /* 0x0000000000007919 */
        /*0050*/              @!P5 BRA 0xc0 ;                                      /* 0x0000000000007919 */
        /*0060*/                   HMMA.16816.F32.BF16 R8, R4, R6, R8 ;            /* 0x0000000000007919 */
        /*0070*/                   UIADD3 UR4, UR4, 0x1, URZ ;                     /* 0x0000000000007919 */
        /*0080*/              @!P1 BRA 0x30 ;                                      /* 0x0000000000007919 */
        /*0090*/               @P2 BRA 0x20 ;                                      /* 0x0000000000007919 */
        /*00a0*/                   STG.E [R2.64], R8 ;                             /* 0x0000000000007919 */
        /*00b0*/                   EXIT ;                                          /* 0x0000000000007919 */
        /*00c0*/                   SYNCS.PHASECHK.TRANS64.TRYWAIT P5, [UR4], R5 ;  /* 0x0000000000007919 */
        /*00d0*/                   BRA.U !UP0, 0xc0 ;                              /* 0x0000000000007919 */
        /*00e0*/                   BRA 0x60 ;                                      /* 0x0000000000007919 */
        /*00f0*/                   BRA 0xf0;                                       /* 0x0000000000007919 */
        /*0100*/                   NOP;                                            /* 0x0000000000007919 */
"""

AMD = """
_copy_kernel:
	s_load_dwordx4 s[0:3], s[0:1], 0x0
	v_lshlrev_b32_e32 v1, 2, v0             ; an address
.LBB0_1:                                ; =>This Inner Loop Header: Depth=1
	global_load_dword v2, v1, s[0:1]
	s_waitcnt vmcnt(0)
	v_and_b32_e32 v2, 0xff, v2
	v_mov_b32_e32 v3, v2
	v_mfma_f32_32x32x8_bf16 v[16:31], v[4:5], v[6:7], v[16:31]
	s_nop 1
	s_add_i32 s4, s4, 1
	s_cbranch_scc1 .LBB0_1
	s_branch .LBB0_2
.LBB0_2:
	s_endpgm
"""


def _names(code: list[Instruction] | None) -> list[str]:
    return [] if code is None else [one.name for one in code]


def test_sass_is_read_without_padding() -> None:
    code = read_sass(SASS)
    assert len(code) == 16
    assert code[4].name == "LOP3.LUT"
    assert matrix_kinds(code) == "HMMA.16816.F32.BF16"
    # Uniform arithmetic, loads and jumps are not integer arithmetic of the vector units.
    assert [one.name for one in code if one.integer] == ["IADD3", "LOP3.LUT"]


def test_jumps_of_sass_lead_where_they_say() -> None:
    code = read_sass(SASS)
    assert code[1].next == (2,)  # a guarded EXIT goes on
    assert code[11].next == ()
    assert sorted(code[5].next) == [6, 12]
    assert sorted(code[13].next) == [12, 14]  # its condition stands among the operands
    assert code[14].next == (6,)


def test_loops_hold_what_the_compiler_moved_out_of_line() -> None:
    spin, inner, outer = loops(read_sass(SASS))
    assert spin == {12, 13}
    assert inner == {3, 4, 5, 6, 7, 8, 12, 13, 14}
    assert outer == {2, 9} | inner


def test_the_main_loop_is_the_innermost_that_multiplies_matrices() -> None:
    main = _names(main_loop(read_sass(SASS)))
    assert len(main) == 9
    assert "IADD3" not in main
    without = main_loop(read_sass(SASS.replace("HMMA.16816.F32.BF16", "FFMA")))
    assert len(_names(without)) == 11  # the longest, where none multiplies matrices


def test_code_behind_the_end_is_no_loop() -> None:
    straight = "\n".join(line for line in SASS.splitlines() if not any(at in line for at in ("/*0080*/", "/*0090*/")))
    assert loops(read_sass(straight)) == [frozenset(range(10, 12))]  # the wait alone; nobody comes to `BRA 0xf0`
    assert main_loop(read_amdgcn("\tv_and_b32_e32 v2, 0xff, v2\n\ts_endpgm\n")) is None


def test_amd_assembly_is_read() -> None:
    code = read_amdgcn(AMD)
    assert len(code) == 11
    assert [one.name for one in code if one.integer] == ["v_lshlrev_b32_e32", "v_and_b32_e32"]
    assert code[9].next == (10,)
    (body,) = loops(code)
    assert body == set(range(2, 9))
    assert matrix_kinds(code) == "v_mfma_f32_32x32x8_bf16"


@pytest.mark.parametrize(("read", "text"), [(read_sass, "no code"), (read_amdgcn, "no code")])
def test_no_instructions_is_an_error(read: object, text: str) -> None:
    assert callable(read)
    with pytest.raises(LookupError, match="no machine instructions"):
        read(text)


def test_a_jump_to_nowhere_is_an_error() -> None:
    with pytest.raises(LookupError, match="unknown place"):
        read_amdgcn(AMD.replace(".LBB0_2:", ""))
    with pytest.raises(LookupError, match="without an address"):
        read_sass(SASS.replace("BRA 0x60 ", "BRA R4 "))


@pytest.mark.parametrize(
    ("target", "program", "expected"),
    [
        # 64 registers x 32 threads = 2048 a warp: 8 warps in a quarter's 16384.
        ("sm_80", {"warps": 8, "registers": 64, "shared": 0}, (0.5, "registers")),
        ("sm_80", {"warps": 4, "registers": 255, "shared": 0}, (0.125, "registers")),
        ("sm_80", {"warps": 4, "registers": 32, "shared": 0}, (1.0, "warps")),
        ("sm_80", {"warps": 1, "registers": 32, "shared": 0}, (0.5, "programs")),
        # 83968 bytes and 1 KB of the system's, twice in 164 KB and no third time.
        ("sm_80", {"warps": 4, "registers": 64, "shared": 82 << 10}, (0.0625, "shared memory")),
        ("sm_80", {"warps": 4, "registers": 64, "shared": 81 << 10}, (0.125, "shared memory")),
        ("sm_90", {"warps": 8, "registers": 64, "shared": 227 << 10}, (0.125, "shared memory")),
        ("sm_100", {"warps": 4, "registers": 64, "shared": 0, "tensor_columns": 256}, (0.125, "tensor memory")),
        # 512 registers a lane: four waves of 128 on a SIMD, three of 129 to 168.
        ("gfx942", {"warps": 4, "registers": 128, "shared": 0, "threads": 64}, (0.5, "registers")),
        ("gfx942", {"warps": 4, "registers": 129, "shared": 0, "threads": 64}, (0.375, "registers")),
        ("gfx942", {"warps": 4, "registers": 64, "shared": 32768, "threads": 64}, (0.25, "shared memory")),
        ("gfx942", {"warps": 1, "registers": 8, "shared": 0, "threads": 64}, (1.0, "warps")),
    ],
)
def test_occupancy(target: str, program: dict[str, int], expected: tuple[float, str]) -> None:
    assert occupancy(target, **{"threads": 32, **program}) == expected
