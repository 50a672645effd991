"""The device that a flag names."""

import torch

__all__ = ["device_named"]


def device_named(name: str) -> torch.device:
    """The device called `name`; "auto" is the GPU where there is one.

    Raises:
        ValueError: no such device, or none of its kind here.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ValueError(f"device {name!r}: expected auto, cpu, cuda or cuda:N") from error
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ValueError(f"device {name!r}: torch finds no GPU here; run on cpu")
    return device
