"""Data sets: batches of training and test data as a recipe takes them."""
