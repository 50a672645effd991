"""How scores, and dense weights, move."""
