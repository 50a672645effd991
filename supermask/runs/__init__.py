"""Running recipes: one, or many at once; what grids of runs are made of."""

from supermask.devices import meant
from supermask.files import write_whole
from supermask.runs.console import table
from supermask.runs.duration import StepTimes, spoken
from supermask.runs.grid import Job, cores, run_grid
from supermask.runs.main import program, told
from supermask.runs.read import RunRecord, read_run

__all__ = [
    "Job", "RunRecord", "StepTimes", "cores", "meant", "program", "read_run", "run_grid", "spoken", "table", "told",
    "write_whole",
]  # fmt: skip
