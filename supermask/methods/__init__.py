"""What a search does, in which order; `METHODS` has a row a method, as command lines and grids name it."""

from collections.abc import Mapping

from supermask.edges.rules import GlobalTopKept, Rule, TopKept
from supermask.kernels.base.keys import Threshold
from supermask.methods.baselines import InitialMagnitude, RandomMask, Shuffled
from supermask.methods.biprop import Biprop
from supermask.methods.edge_popup import EP, EPLong
from supermask.methods.gem_miner import GemMiner
from supermask.methods.iep import IEP
from supermask.methods.iterand import IteRand
from supermask.methods.method import Method
from supermask.methods.multicoated import Multicoated
from supermask.methods.sampled import Sampled
from supermask.methods.signed import Signed

__all__ = [
    "EP",
    "IEP",
    "METHODS",
    "Biprop",
    "EPLong",
    "GemMiner",
    "GlobalTopKept",
    "InitialMagnitude",
    "IteRand",
    "Method",
    "Multicoated",
    "RandomMask",
    "Rule",
    "Sampled",
    "Shuffled",
    "Signed",
    "Threshold",
    "TopKept",
]

METHODS: Mapping[str, Method] = {
    "EP": EP(),
    "EP long": EPLong(),
    "hard iEP": IEP(space="survivors"),
    "hard iEP FT": IEP(space="survivors", lr="final"),
    "hard iEP SRw": IEP(space="survivors", scores="initial"),
    "hard iEP SRi": IEP(space="survivors", scores="fresh"),
    "soft iEP": IEP(),
    "soft iEP FT": IEP(lr="final"),
    "soft iEP zero": IEP(unselected="zero"),
    "soft iEP SRw zero": IEP(scores="initial", unselected="zero"),
    "IteRand": IteRand(),
    "multicoated": Multicoated(),
    "multicoated soft iEP": Multicoated(cycles=15, final=None),
    "Biprop": Biprop(),
    "sampled": Sampled(),
    "signed": Signed(),
    "Gem-Miner": GemMiner(),
    "random mask": RandomMask(),
    "shuffled": Shuffled(),
    "initial magnitude": InitialMagnitude(),
}
