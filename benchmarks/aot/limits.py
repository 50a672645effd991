"""How many warps a multiprocessor can hold of a kernel: what its registers, shared memory and warps leave room for.

Sources: NVIDIA, CUDA C++ Programming Guide, "Technical Specifications per Compute Capability" (8.0, 9.0, 10.0), and the
allocation granularities of the CUDA Occupancy Calculator; AMD, "CDNA3 Instruction Set Architecture" (registers, LDS)
and LLVM's "User Guide for AMDGPU Backend" with its GCN subtarget (granularities, waves of a SIMD, workgroups).
"""

from dataclasses import dataclass

__all__ = ["LIMITS", "Limits", "occupancy"]


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What one multiprocessor (NVIDIA: SM, AMD: compute unit) has."""

    warps: int
    """Warps resident at once (AMD: waves)."""
    programs: int
    """Programs resident at once."""
    registers: int
    """Of 32 bits; AMD's are those of the vector units, accumulation registers included."""
    register_unit: int
    """Registers are given to a warp in multiples of this."""
    quarters: int
    """Schedulers, each with an equal part of warps and registers; a warp takes both from one of them."""
    shared: int
    """Bytes of shared memory (AMD: LDS)."""
    shared_unit: int
    """Shared memory is given to a program in multiples of this."""
    shared_reserved: int
    """Bytes of shared memory that each program takes beside its own."""
    tensor_columns: int = 0
    """Columns of tensor memory, where there is one."""


_NVIDIA = Limits(
    warps=64, programs=32, registers=65536, register_unit=256, quarters=4, shared=164 << 10, shared_unit=128,
    shared_reserved=1024,
)  # fmt: skip
LIMITS: dict[str, Limits] = {
    "sm_80": _NVIDIA,
    "sm_90": Limits(**{**vars(_NVIDIA), "shared": 228 << 10}),
    "sm_100": Limits(**{**vars(_NVIDIA), "shared": 228 << 10, "tensor_columns": 512}),
    # 512 registers a lane of each SIMD, in steps of 8; 8 waves a SIMD.
    "gfx942": Limits(
        warps=32,
        programs=16,
        registers=4 * 512 * 64,
        register_unit=8 * 64,
        quarters=4,
        shared=64 << 10,
        shared_unit=512,
        shared_reserved=0,
    ),
}


def occupancy(
    target: str, *, warps: int, threads: int, registers: int, shared: int, tensor_columns: int = 0
) -> tuple[float, str]:
    """An upper bound on the resident warps, over those that the multiprocessor can hold, and what sets it.

    Args:
        target: a key of `LIMITS`.
        warps: of a program.
        threads: in a warp.
        registers: of a thread.
        shared: bytes of shared memory of a program.
        tensor_columns: columns of tensor memory of a program.

    Returns:
        The fraction in [0, 1], and "warps", "registers", "shared memory", "tensor memory" or "programs".
    """
    limit = LIMITS[target]
    a_warp = max(1, -(-registers * threads // limit.register_unit)) * limit.register_unit
    a_program = -(-(shared + limit.shared_reserved) // limit.shared_unit) * limit.shared_unit
    room = {
        "warps": limit.warps // warps,
        "registers": limit.quarters * (limit.registers // limit.quarters // a_warp) // warps,
        "programs": limit.warps if warps == 1 and threads == 64 else limit.programs,
    }
    if a_program:
        room["shared memory"] = limit.shared // a_program
    if tensor_columns and limit.tensor_columns:
        room["tensor memory"] = limit.tensor_columns // tensor_columns
    reason = min(room, key=lambda name: room[name])
    return room[reason] * warps / limit.warps, reason
