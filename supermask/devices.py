"""The device that a flag names."""

import torch


def meant(name: str) -> str:
    """What `name` stands for here: of "auto" the GPU where there is one, any other itself."""
    return ("cuda" if torch.cuda.is_available() else "cpu") if name == "auto" else name


def device_named(name: str) -> torch.device:
    """The device called `name`; "auto" is the GPU where there is one.

    Raises:
        ValueError: no such device, or none of its kind here.
    """
    name = meant(name)
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ValueError(f"device {name!r}: expected auto, cpu, cuda or cuda:N") from error
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ValueError(f"device {name!r}: torch finds no GPU here; run on cpu")
    return device
