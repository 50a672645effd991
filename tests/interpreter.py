"""Triton's interpreter with less ado, so that interpreted tests take less time.

What it looks up again for every function that a kernel calls is remembered: the names of what Triton's language has
built in, and what NumPy calls its types. And sums are no longer computed in 64 bits, too, for an assertion that it then
drops (`device_assert` without debug). Where Triton has one of these names no longer, all is as it was.
"""

import inspect
from dataclasses import replace
from functools import cache
from typing import Any


def hasten() -> None:
    """Have Triton's interpreter do without, in this process."""
    from triton.runtime import interpreter

    names = "_patch_builtin", "_patch_attr", "_get_np_dtype", "interpreter_builder"
    if not all(hasattr(interpreter, name) for name in names):
        return
    built, options = interpreter.interpreter_builder, interpreter.interpreter_builder.options
    if not options.debug:
        built.options = replace(options, sanitize_overflow=False)
    built_in: dict[Any, list[str]] = {}
    is_builtin, patch_attr = interpreter.tl.core.is_builtin, interpreter._patch_attr

    def patch_builtin(place: Any, builder: Any, *scope: Any) -> None:
        if place not in built_in:  # looked at before anything is patched
            built_in[place] = [name for name, member in inspect.getmembers(place) if is_builtin(member)]
        for name in built_in[place]:
            member = getattr(place, name)
            if is_builtin(member):
                patch_attr(place, name, member, builder, *scope)

    interpreter._patch_builtin = patch_builtin
    of_element = cache(interpreter._get_np_dtype)

    def get_np_dtype(type_: Any) -> Any:
        element = type_.element_ty if isinstance(type_, interpreter.tl.block_type) else type_
        return of_element(interpreter.tl.uint64 if isinstance(element, interpreter.tl.pointer_type) else element)

    interpreter._get_np_dtype = get_np_dtype
