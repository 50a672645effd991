"""Running recipes: one, or many at once; what grids of runs are made of."""

from supermask.checks import check_choice
from supermask.devices import device_named, meant
from supermask.files import check_writable, write_whole
from supermask.later import LATER, Grown
from supermask.runs.console import table
from supermask.runs.duration import StepTimes, spoken
from supermask.runs.ending import told
from supermask.runs.grid import GridError, Job, cores, run_grid
from supermask.runs.imports import parsed
from supermask.runs.main import name_of, program
from supermask.runs.picking import Picked, pick
from supermask.runs.read import RunRecord, mean_and_error, read_run

__all__ = [
    "LATER",
    "GridError",
    "Grown",
    "Job",
    "Picked",
    "RunRecord",
    "StepTimes",
    "check_choice",
    "check_writable",
    "cores",
    "device_named",
    "mean_and_error",
    "meant",
    "name_of",
    "parsed",
    "pick",
    "program",
    "read_run",
    "run_grid",
    "spoken",
    "table",
    "told",
    "write_whole",
]
