"""Modules around a network, or around a part of one, that put a name of theirs into the names of what is inside."""

from collections.abc import Callable, Iterator
from typing import Any

from torch import nn

from supermask.checks import join

COMPILED = "_orig_mod"
"""What torch.compile calls the module that it was given."""

# By file and name, since most of these files are imported by those alone who use them.
_PARTS = {
    ("torch._dynamo.eval_frame", "OptimizedModule"): COMPILED,
    ("torch.nn.parallel.data_parallel", "DataParallel"): "module",
    ("torch.nn.parallel.distributed", "DistributedDataParallel"): "module",
    ("torch.optim.swa_utils", "AveragedModel"): "module",
    ("timm.utils.model_ema", "ModelEmaV2"): "module",
    ("timm.utils.model_ema", "ModelEmaV3"): "module",
    ("apex.parallel.distributed", "DistributedDataParallel"): "module",
    ("deepspeed.runtime.engine", "DeepSpeedEngine"): "module",
    ("torch.distributed.algorithms._checkpoint.checkpoint_wrapper", "ActivationWrapper"): "_checkpoint_wrapped_module",
    ("torch.distributed.fsdp.fully_sharded_data_parallel", "FullyShardedDataParallel"): "_fsdp_wrapped_module",
}


def wrapped_part(module: nn.Module) -> str | None:
    """The name that `module`, a wrapper, has for what it wraps; None of any other module."""
    kinds = ((kind.__module__, kind.__qualname__) for kind in type(module).__mro__)
    return next((_PARTS[kind] for kind in kinds if kind in _PARTS), None)


def unwrapped(model: nn.Module) -> nn.Module:
    """The network in `model`, which may be wrapped several times."""
    while (part := wrapped_part(model)) is not None:
        model = model.get_submodule(part)
    return model


def names_inside(model: nn.Module) -> Callable[[str], str]:
    """What a name of something in `model` is without the names of wrappers."""
    modules = model.named_modules(remove_duplicate=False)
    wrapping = {join(name, part) for name, module in modules if (part := wrapped_part(module))}
    if not wrapping:
        return lambda name: name

    def inside(name: str) -> str:
        path, parts = "", []
        for part in name.split("."):
            path = join(path, part)
            if path not in wrapping:
                parts.append(part)
        return ".".join(parts)

    return inside


def modules_inside(model: nn.Module, **how: Any) -> Iterator[tuple[str, nn.Module]]:
    """`model.named_modules()` without wrappers and their names."""
    inside = names_inside(model)
    for name, module in model.named_modules(**how):
        if wrapped_part(module) is None:
            yield inside(name), module
