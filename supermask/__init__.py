"""Search, study and ship strong lottery tickets: network = architecture + seed + mask."""

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
from supermask.data.image_folder import ImageFolder
from supermask.data.image_sets import CIFAR10, CIFAR100, MNIST, SVHN
from supermask.edges.in_model import SparseLayerWarning, searched_edges, set_remaining
from supermask.edges.packed import PackedEdges
from supermask.edges.searched import SearchedEdges
from supermask.edges.selection import one_selection
from supermask.methods import METHODS
from supermask.methods.cycles import Cycle, down_to, shrinking
from supermask.methods.edge_popup import ep, ep_long
from supermask.methods.iep import (
    hard_iep,
    hard_iep_ft,
    hard_iep_sri,
    hard_iep_srw,
    soft_iep,
    soft_iep_ft,
    soft_iep_srw_zero,
    soft_iep_zero,
)
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
from supermask.networks.small import MLP
from supermask.networks.summary import summary
from supermask.runs.interrupts import Interrupted
from supermask.runs.main import main
from supermask.runs.options import Conversion, RunOptions, RunResult
from supermask.runs.recipe import Recipe
from supermask.runs.stages import Evaluate, Export, Search, Train, search
from supermask.tickets.errors import TicketError
from supermask.tickets.load import inspect, load, verify
from supermask.tickets.save import save, save_folder
from supermask.training.evaluate import accuracy, recalibrate
from supermask.training.memory import keep_freed_memory
from supermask.training.non_finite import NonFiniteError
from supermask.training.score_sgd import ScoreSGD
from supermask.training.training import Training

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
