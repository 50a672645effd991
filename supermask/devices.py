"""The device that a flag names, and the random numbers of one."""

import torch


def meant(name: str) -> str:
    """What `name` stands for here: of "auto" the GPU where there is one, any other itself."""
    return ("cuda" if torch.cuda.is_available() else "cpu") if name == "auto" else name


def device_named(name: str) -> torch.device:
    """The device called `name`; "auto" is the GPU where there is one.

    Raises:
        ValueError: none that supermask runs on is called so, or it is not there.
    """
    name = meant(name)
    kind, colon, number = name.partition(":")
    if kind not in ("cpu", "cuda") or (colon and not (number.isascii() and number.isdecimal())):
        raise ValueError(f"device {name!r}: expected auto, cpu, cuda or cuda:N")
    index = int(number or 0)
    if kind == "cpu":
        if index:
            raise ValueError(f"device {name!r}: there is one CPU to torch; say cpu")
        return torch.device(name)
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if not count:
        raise ValueError(f"device {name!r}: torch finds no GPU here; run on cpu")
    if index >= count:
        there = "cuda:0 alone" if count == 1 else f"cuda:0 to cuda:{count - 1}"
        raise ValueError(f"device {name!r}: torch finds {there} here; name one that is there")
    return torch.device(f"cuda:{index}" if colon else "cuda")


def set_seed(seed: int, device: torch.device) -> None:
    """Seed torch's generators of the CPU and of `device`, as torch.manual_seed does.

    That one asks after every kind of device there may be, and writes down the call stack for each that is not: a good
    part of a step of a small network.
    """
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        with torch.cuda.device(device):
            torch.cuda.manual_seed(seed)
