"""Search, study and ship strong lottery tickets: network = architecture + seed + mask.

Layers and conversion are imported at once. Whatever else is named here comes with its room when it is first asked for,
so that whoever only wants layers waits for no command line, no entropy coder and no data loader, and needs none.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from supermask.checks import SearchWarning, SupermaskError
from supermask.edges.in_model import searched_edges
from supermask.edges.packed import PackedEdges
from supermask.edges.searched import SearchedEdges
from supermask.edges.selection import one_selection
from supermask.networks.allocation import Allocator
from supermask.networks.architecture import Architecture
from supermask.networks.attention import SupermaskMultiheadAttention
from supermask.networks.convert import convert
from supermask.networks.layers import (
    SupermaskConv1d,
    SupermaskConv2d,
    SupermaskConv3d,
    SupermaskConvTranspose1d,
    SupermaskConvTranspose2d,
    SupermaskConvTranspose3d,
    SupermaskLinear,
)
from supermask.networks.network import Network
from supermask.networks.rates import SparseLayerWarning, set_remaining
from supermask.networks.registry import register
from supermask.networks.small import MLP
from supermask.networks.summary import summary
from supermask.training.evaluate import accuracy, recalibrate
from supermask.training.memory import keep_freed_memory
from supermask.training.score_sgd import ScoreSGD

if TYPE_CHECKING:
    from supermask.data.base import (
        About,
        Augment,
        Batch,
        Data,
        DataDamaged,
        DataMissing,
        Described,
        Loaded,
        Part,
        in_memory,
    )
    from supermask.data.digits import Digits
    from supermask.data.digits32 import Digits32
    from supermask.data.image_folder import ImageFolder
    from supermask.data.image_sets import CIFAR10, CIFAR100, MNIST, SVHN
    from supermask.methods import METHODS
    from supermask.methods.baselines import InitialMagnitude, RandomMask, Shuffled
    from supermask.methods.biprop import Biprop
    from supermask.methods.cycles import Cycle, down_to, shrinking
    from supermask.methods.edge_popup import EP, EPLong, ep, ep_long
    from supermask.methods.gem_miner import GemMiner
    from supermask.methods.iep import (
        IEP,
        hard_iep,
        hard_iep_ft,
        hard_iep_sri,
        hard_iep_srw,
        soft_iep,
        soft_iep_ft,
        soft_iep_srw_zero,
        soft_iep_zero,
    )
    from supermask.methods.iterand import IteRand
    from supermask.methods.method import Method
    from supermask.methods.multicoated import Multicoated
    from supermask.methods.sampled import Sampled
    from supermask.methods.signed import Signed
    from supermask.reports.frames import frames
    from supermask.reports.paired import compare
    from supermask.runs import trackers
    from supermask.runs.hook import Begun, Hook, HookError, Now
    from supermask.runs.interrupts import Interrupted
    from supermask.runs.main import main
    from supermask.runs.masks import masks, overlap
    from supermask.runs.options import Conversion, RunOptions, RunResult
    from supermask.runs.read import RunRecord, read_run
    from supermask.runs.recipe import Recipe
    from supermask.runs.stages import Evaluate, Export, Search, Train, search
    from supermask.runs.validation import Validation
    from supermask.tickets import exports
    from supermask.tickets.errors import TicketError
    from supermask.tickets.load import inspect, load, verify
    from supermask.tickets.save import save, save_folder
    from supermask.training.non_finite import NonFiniteError
    from supermask.training.schedules import StepRates
    from supermask.training.sgdw import SGDW
    from supermask.training.training import Training

__version__ = "0.1.0"

_WHERE = {  # the imports of TYPE_CHECKING once more, for when a name is asked for
    "supermask.data.base": [
        "About", "Augment", "Batch", "Data", "DataDamaged", "DataMissing", "Described", "Loaded", "Part", "in_memory",
    ],
    "supermask.data.digits": ["Digits"],
    "supermask.data.digits32": ["Digits32"],
    "supermask.data.image_folder": ["ImageFolder"],
    "supermask.data.image_sets": ["CIFAR10", "CIFAR100", "MNIST", "SVHN"],
    "supermask.methods": ["METHODS"],
    "supermask.methods.baselines": ["InitialMagnitude", "RandomMask", "Shuffled"],
    "supermask.methods.biprop": ["Biprop"],
    "supermask.methods.cycles": ["Cycle", "down_to", "shrinking"],
    "supermask.methods.edge_popup": ["EP", "EPLong", "ep", "ep_long"],
    "supermask.methods.gem_miner": ["GemMiner"],
    "supermask.methods.iep": [
        "IEP", "hard_iep", "hard_iep_ft", "hard_iep_sri", "hard_iep_srw", "soft_iep", "soft_iep_ft",
        "soft_iep_srw_zero", "soft_iep_zero",
    ],
    "supermask.methods.iterand": ["IteRand"],
    "supermask.methods.method": ["Method"],
    "supermask.methods.multicoated": ["Multicoated"],
    "supermask.methods.sampled": ["Sampled"],
    "supermask.methods.signed": ["Signed"],
    "supermask.reports.frames": ["frames"],
    "supermask.reports.paired": ["compare"],
    "supermask.runs.hook": ["Begun", "Hook", "HookError", "Now"],
    "supermask.runs.interrupts": ["Interrupted"],
    "supermask.runs.main": ["main"],
    "supermask.runs.masks": ["masks", "overlap"],
    "supermask.runs.options": ["Conversion", "RunOptions", "RunResult"],
    "supermask.runs.read": ["RunRecord", "read_run"],
    "supermask.runs.recipe": ["Recipe"],
    "supermask.runs.stages": ["Evaluate", "Export", "Search", "Train", "search"],
    "supermask.runs.trackers": ["trackers"],  # the module itself, as the next
    "supermask.runs.validation": ["Validation"],
    "supermask.tickets.exports": ["exports"],
    "supermask.tickets.errors": ["TicketError"],
    "supermask.tickets.load": ["inspect", "load", "verify"],
    "supermask.tickets.save": ["save", "save_folder"],
    "supermask.training.non_finite": ["NonFiniteError"],
    "supermask.training.schedules": ["StepRates"],
    "supermask.training.sgdw": ["SGDW"],
    "supermask.training.training": ["Training"],
}  # fmt: skip
_LATER = {name: module for module, names in _WHERE.items() for name in names}

__all__ = [
    "CIFAR10",
    "CIFAR100",
    "EP",
    "IEP",
    "METHODS",
    "MLP",
    "MNIST",
    "SGDW",
    "SVHN",
    "About",
    "Allocator",
    "Architecture",
    "Augment",
    "Batch",
    "Begun",
    "Biprop",
    "Conversion",
    "Cycle",
    "Data",
    "DataDamaged",
    "DataMissing",
    "Described",
    "Digits",
    "Digits32",
    "EPLong",
    "Evaluate",
    "Export",
    "GemMiner",
    "Hook",
    "HookError",
    "ImageFolder",
    "InitialMagnitude",
    "Interrupted",
    "IteRand",
    "Loaded",
    "Method",
    "Multicoated",
    "Network",
    "NonFiniteError",
    "Now",
    "PackedEdges",
    "Part",
    "RandomMask",
    "Recipe",
    "RunOptions",
    "RunRecord",
    "RunResult",
    "Sampled",
    "ScoreSGD",
    "Search",
    "SearchWarning",
    "SearchedEdges",
    "Shuffled",
    "Signed",
    "SparseLayerWarning",
    "StepRates",
    "SupermaskConv1d",
    "SupermaskConv2d",
    "SupermaskConv3d",
    "SupermaskConvTranspose1d",
    "SupermaskConvTranspose2d",
    "SupermaskConvTranspose3d",
    "SupermaskError",
    "SupermaskLinear",
    "SupermaskMultiheadAttention",
    "TicketError",
    "Train",
    "Training",
    "Validation",
    "accuracy",
    "compare",
    "convert",
    "down_to",
    "ep",
    "ep_long",
    "exports",
    "frames",
    "hard_iep",
    "hard_iep_ft",
    "hard_iep_sri",
    "hard_iep_srw",
    "in_memory",
    "inspect",
    "keep_freed_memory",
    "load",
    "main",
    "masks",
    "one_selection",
    "overlap",
    "read_run",
    "recalibrate",
    "register",
    "save",
    "save_folder",
    "search",
    "searched_edges",
    "set_remaining",
    "shrinking",
    "soft_iep",
    "soft_iep_ft",
    "soft_iep_srw_zero",
    "soft_iep_zero",
    "summary",
    "trackers",
    "verify",
]


def __getattr__(name: str) -> Any:
    if name not in _LATER:
        raise AttributeError(f"module 'supermask' has no attribute {name!r}")
    module = import_module(_LATER[name])
    value = module if name in ("exports", "trackers") else getattr(module, name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
