"""Looking at runs: lines of a figure, figures, their numbers, tables and comparisons."""

from supermask.reports.figures import Format, picture_files, to_png
from supermask.reports.lines import Line, Point, line
from supermask.reports.numbers import Table, accuracy_curves, curves_table, dying_curves, rank_table
from supermask.reports.paired import Comparison
from supermask.reports.pairs import Paired
from supermask.reports.plots import accuracy_against_remaining, accuracy_panels, dying_against_remaining
from supermask.reports.run_plots import rank_traces

__all__ = [
    "Comparison",
    "Format",
    "Line",
    "Paired",
    "Point",
    "Table",
    "accuracy_against_remaining",
    "accuracy_curves",
    "accuracy_panels",
    "curves_table",
    "dying_against_remaining",
    "dying_curves",
    "line",
    "picture_files",
    "rank_table",
    "rank_traces",
    "to_png",
]
