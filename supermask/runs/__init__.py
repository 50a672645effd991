"""One experiment that survives."""
