"""The experiments: each module is one, run as `python -m recipes.NAME`."""
