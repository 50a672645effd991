"""Looking at runs: lines of a figure, and figures."""

from supermask.reports.figures import to_png
from supermask.reports.lines import Line, Point, line
from supermask.reports.plots import accuracy_against_remaining, dying_against_remaining
from supermask.reports.run_plots import rank_traces

__all__ = [
    "Line",
    "Point",
    "accuracy_against_remaining",
    "dying_against_remaining",
    "line",
    "rank_traces",
    "to_png",
]
