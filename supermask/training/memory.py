"""Memory of CPU training: freed pages stay with the process.

A training step frees and allocates the same hundreds of megabytes over and over. By default the C library gives freed
memory back to the system, which has to map and clear it again a moment later, page by page: on the machine where this
was measured a tenth of a step of ResNet-18, and more of a search step, which makes its weights anew.
"""

import ctypes

_TRIM_THRESHOLD, _MMAP_MAX = -1, -4  # malloc.h


def keep_freed_memory() -> bool:
    """From here on this process reuses the memory it frees, and holds as much as it ever needed at once.

    A setting of the whole process, so it is for programs, not for libraries: `Recipe.execute` makes it on CPU.

    Returns:
        Whether the C library has the setting: glibc does.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    return all(mallopt(name, value) == 1 for name, value in ((_MMAP_MAX, 0), (_TRIM_THRESHOLD, 2**31 - 1)))
