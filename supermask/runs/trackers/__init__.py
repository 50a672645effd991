"""Hooks that tell others of a run: TensorBoard, MLflow, Weights & Biases. None of them changes what is trained.

    Recipe(..., hooks=(supermask.trackers.MLflow(experiment="tickets"),))

Each has the numbers of every line of metrics.jsonl as EVENT/NAME (epoch/loss, evaluate/accuracy) and the settings; a
run that goes on goes on there too. A backend that is away is warned of, and told the rest later; it ends a run only
where the run begins.
"""

from supermask.runs.trackers.mlflow import MLflow
from supermask.runs.trackers.tensorboard import TensorBoard
from supermask.runs.trackers.wandb import WandB

__all__ = ["MLflow", "TensorBoard", "WandB"]
