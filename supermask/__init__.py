"""Search, study and ship strong lottery tickets: network = architecture + seed + mask."""

from supermask.convert import SparseLayerWarning, convert, set_remaining, summary
from supermask.cycles import (
    METHODS,
    Cycle,
    down_to,
    ep,
    ep_long,
    hard_iep,
    hard_iep_ft,
    hard_iep_sri,
    hard_iep_srw,
    shrinking,
    soft_iep,
    soft_iep_ft,
    soft_iep_srw_zero,
    soft_iep_zero,
)
from supermask.data import (
    About,
    Augment,
    Batch,
    Data,
    DataDamaged,
    DataMissing,
    Described,
    Digits,
    Loaded,
    Part,
    in_memory,
)
from supermask.edges import SearchedEdges
from supermask.evaluate import accuracy, recalibrate
from supermask.image_folder import ImageFolder
from supermask.image_sets import CIFAR10, CIFAR100, MNIST, SVHN
from supermask.interrupts import Interrupted
from supermask.layers import (
    SupermaskConv1d,
    SupermaskConv2d,
    SupermaskConv3d,
    SupermaskConvTranspose1d,
    SupermaskConvTranspose2d,
    SupermaskConvTranspose3d,
    SupermaskLinear,
    SupermaskMultiheadAttention,
)
from supermask.memory import keep_freed_memory
from supermask.networks import MLP, Architecture
from supermask.packed_edges import PackedEdges
from supermask.recipe import Conversion, Recipe, RunOptions, RunResult, main
from supermask.score_sgd import ScoreSGD
from supermask.selection import one_selection, searched_edges
from supermask.stages import Evaluate, Export, Search, Train, search
from supermask.ticket import TicketError, inspect, load, save, save_folder, verify
from supermask.train import NonFiniteError, Training

__version__ = "0.1.0"

__all__ = [
    "CIFAR10",
    "CIFAR100",
    "METHODS",
    "MLP",
    "MNIST",
    "SVHN",
    "About",
    "Architecture",
    "Augment",
    "Batch",
    "Conversion",
    "Cycle",
    "Data",
    "DataDamaged",
    "DataMissing",
    "Described",
    "Digits",
    "Evaluate",
    "Export",
    "ImageFolder",
    "Interrupted",
    "Loaded",
    "NonFiniteError",
    "PackedEdges",
    "Part",
    "Recipe",
    "RunOptions",
    "RunResult",
    "ScoreSGD",
    "Search",
    "SearchedEdges",
    "SparseLayerWarning",
    "SupermaskConv1d",
    "SupermaskConv2d",
    "SupermaskConv3d",
    "SupermaskConvTranspose1d",
    "SupermaskConvTranspose2d",
    "SupermaskConvTranspose3d",
    "SupermaskLinear",
    "SupermaskMultiheadAttention",
    "TicketError",
    "Train",
    "Training",
    "accuracy",
    "convert",
    "down_to",
    "ep",
    "ep_long",
    "hard_iep",
    "hard_iep_ft",
    "hard_iep_sri",
    "hard_iep_srw",
    "in_memory",
    "inspect",
    "keep_freed_memory",
    "load",
    "main",
    "one_selection",
    "recalibrate",
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
    "verify",
]
