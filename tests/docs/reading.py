"""The NumPy reader of docs/, and the tickets that its tests read."""

import importlib.util
from types import ModuleType
from typing import Any

from torch import nn

from supermask.networks.architecture import Architecture
from supermask.networks.convert import convert
from tests.places import ROOT, VERSION_1, VERSION_2
from tests.supermask.tickets.networks import lived

READER = ROOT / "docs" / "read_ticket.py"
TICKETS_1 = sorted(VERSION_1.glob("version1_*.safetensors"))
TICKETS_2 = sorted(VERSION_2.glob("version2_*.safetensors"))
OLDER = [*TICKETS_1, *TICKETS_2]


def imported() -> ModuleType:
    """The reader; docs/ is no package."""
    spec = importlib.util.spec_from_file_location("read_ticket", READER)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


reader = imported()


def conv2(widths: tuple[int, int] = (8, 8), hidden: int = 16) -> Architecture:
    sizes = {"channels": 1, "size": 8, "widths": list(widths), "hidden": [hidden], "num_classes": 10, "norm": True}
    return Architecture(name="conv2", arguments=sizes)


def searched(**conversion: Any) -> nn.Module:
    """A network whose scores have moved a little from where they began, as a search moves them."""
    return lived(convert(conv2().build(), 5, remaining=0.3, **conversion), 4, 1, 8, 8)
