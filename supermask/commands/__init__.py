"""What `python -m supermask` offers."""
