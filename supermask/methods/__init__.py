"""What a search does, in which order; `METHODS` names what grids run."""

from collections.abc import Callable, Mapping, Sequence

from supermask.methods.cycles import Cycle
from supermask.methods.edge_popup import ep_long
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

METHODS: Mapping[str, Callable[[Sequence[float]], tuple[Cycle, ...]]] = {
    "EP long": ep_long,
    "hard iEP": hard_iep,
    "hard iEP FT": hard_iep_ft,
    "hard iEP SRw": hard_iep_srw,
    "hard iEP SRi": hard_iep_sri,
    "soft iEP": soft_iep,
    "soft iEP FT": soft_iep_ft,
    "soft iEP zero": soft_iep_zero,
    "soft iEP SRw zero": soft_iep_srw_zero,
}
