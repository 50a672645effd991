"""Tensors in, tensors out: each op once in Triton and once in PyTorch, equal by test."""
