"""Kernels on a GPU: checked, then timed beside libraries and beside floors (`python -m benchmarks.gpu`).

parts        by name: facts, checks, products, convolutions, selection, passes, steps, a module each
bench        runs a part's cases within its budget and records each as it ends (record)
timer        seconds on the device, rivals in turn; itself: whether it can be believed
drawn        random inputs; flags: PyTorch's settings that a comparison depends on
floors       what a call must move and compute, over rates measured on the card
exact        what must be equal to the bit; errors: what may err twice as much as PyTorch's own
training     a training step in each of its forms; small: a captured one against an eager one
low_bit      products of 2-bit weights of other packages
tune         other sizes of the kernels' programs; problems: the shapes they are tuned for
"""
