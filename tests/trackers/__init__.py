"""Trackers against what they tell: MLflow's database and W&B's files, read back.

    python -m tests.trackers

The packages (`.ci/trackers.txt`) are for this alone; without them it fails. TensorBoard's is among the other tests.
"""
