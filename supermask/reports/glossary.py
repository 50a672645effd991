"""What the terms of a report mean, a sentence each: its page ends with them; docs/glossary.md has their formulas."""

from collections.abc import Mapping

TERMS: Mapping[str, str] = {
    "remaining": "The fraction of all masked edges that the mask keeps, in (0, 1]; a prune rate k is 1 - remaining.",
    "kept": "The number of edges that the mask selects: max(1, round(remaining * n)) of a layer of n edges where each "
    "layer has the same rate.",
    "dying": "The fraction of all edges that no training forward of the cycle selected, the first one included; under "
    "hard pruning removed edges count as dying.",
    "explored": "The fraction of all edges that the cycle selected at some time and does not keep: k - d.",
    "apparent": "Dying edges among those that hard pruning has left, over those that it has left; the same as dying "
    "where nothing is removed.",
    "cumulative dying": "The fraction of all edges that no training forward of any cycle so far selected.",
    "dead unit": "An output of a masked layer none of whose edges is selected, so that it has no input.",
    "recalibrated": "Measured after the statistics of batch norm were computed again with the final mask, in place of "
    "those that training left, which mix many masks.",
}
