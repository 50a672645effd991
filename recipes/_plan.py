"""What a grid would do, and how long it would take."""

from collections.abc import Sequence

from supermask.recipes._grid import Experiment, Grid
from supermask.runs import StepTimes, device_named, spoken


def show_plan(grid: Grid, experiments: Sequence[Experiment]) -> None:
    """Print what each experiment would do and how long all runs would take; all seeds do the same."""
    device_named(grid.device)  # what is wrong is told before anything else
    times = StepTimes(count=1)  # as a run of a grid
    seconds: list[float | None] = []
    for experiment in experiments:
        print(f"\n{experiment.label}, {grid.seeds} seeds")
        seconds.append(experiment.job(grid, 0).make(dry_run=True).show_plan(times))
    every = [
        (experiment.job(grid, seed), taken)
        for experiment, taken in zip(experiments, seconds, strict=True)
        for seed in range(grid.seeds)
    ]
    jobs = {job.folder: (job, taken) for job, taken in every}
    left = [taken for job, taken in jobs.values() if not job.done]
    epochs = sum(job.make().epochs for job, _ in jobs.values())
    print(
        f"\n{len(jobs)} runs in {grid.runs()}, {len(jobs) - len(left)} of them done; {epochs:,} epochs in all; "
        f"{duration(left, grid.at_once())}"
    )


def duration(runs: Sequence[float | None], workers: int) -> str:
    """How long these runs take, of the seconds of each, so many at once; None was not timed."""
    known = [seconds for seconds in runs if seconds is not None]
    if not runs:
        return "nothing is left to run"
    if len(known) < len(runs):
        return f"{len(runs) - len(known)} of the {len(runs)} runs that are left were not timed"
    workers = min(workers, len(runs))
    return f"what is left takes about {spoken(max(sum(known) / workers, *known))} on this machine, {workers} at once"
