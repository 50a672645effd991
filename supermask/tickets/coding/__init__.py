"""How masks become bytes."""
