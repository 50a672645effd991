"""Search, study and ship strong lottery tickets: network = architecture + seed + mask."""

from supermask.convert import SparseLayerWarning, convert, set_remaining, summary
from supermask.cycles import Cycle, down_to, ep, hard_iep, shrinking, soft_iep
from supermask.data import Data, DataMissing, Digits, ImageFolder, Loaded, in_memory
from supermask.edges import PackedEdges, SearchedEdges
from supermask.evaluate import accuracy, recalibrate
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
from supermask.networks import MLP, Architecture
from supermask.recipe import Conversion, Recipe, RunOptions, RunResult, main
from supermask.selection import one_selection, searched_edges
from supermask.stages import Evaluate, Export, Search, search
from supermask.ticket import TicketError, inspect, load, save
from supermask.train import NonFiniteError, Training

__version__ = "0.1.0"

__all__ = [
    "MLP",
    "Architecture",
    "Conversion",
    "Cycle",
    "Data",
    "DataMissing",
    "Digits",
    "Evaluate",
    "Export",
    "ImageFolder",
    "Loaded",
    "NonFiniteError",
    "PackedEdges",
    "Recipe",
    "RunOptions",
    "RunResult",
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
    "Training",
    "accuracy",
    "convert",
    "down_to",
    "ep",
    "hard_iep",
    "in_memory",
    "inspect",
    "load",
    "main",
    "one_selection",
    "recalibrate",
    "save",
    "search",
    "searched_edges",
    "set_remaining",
    "shrinking",
    "soft_iep",
    "summary",
]
