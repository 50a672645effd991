"""Architecture, seed and mask in one file."""
