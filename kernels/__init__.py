"""Tensors in, tensors out: each op in Triton and in PyTorch, some in C, equal by test.

This is `supermask.kernels`. The folder's own name belongs to another package, which is found from a clone, too;
where it is not installed, who asks whether it is (transformers does) finds a module without a version and a file.
"""

if __name__ == "kernels":
    import sys
    from importlib.machinery import ModuleSpec, PathFinder
    from importlib.util import module_from_spec
    from pathlib import Path
    from types import ModuleType

    root = Path(__file__).resolve().parents[1]
    found = PathFinder.find_spec("kernels", [entry for entry in sys.path if Path(entry).resolve() != root])
    if found is None or found.origin is None or found.loader is None:

        class _Missing(ModuleType):
            def __getattr__(self, name: str) -> object:
                said = (
                    f"{root / 'kernels'} is the package supermask.kernels: import that; sys.path has no other kernels"
                )
                raise AttributeError(said)

        missing = _Missing("kernels")
        missing.__spec__ = ModuleSpec("kernels", None)
        sys.modules["kernels"] = missing
    else:
        other = module_from_spec(found)
        sys.modules["kernels"] = other  # what `import kernels` gives, once this module has run
        found.loader.exec_module(other)
