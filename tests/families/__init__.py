"""Every family of networks that users bring: converted, stepped, saved and loaded, with equal logits.

    python -m tests.families [torchvision] [timm] [transformers] [--write docs/networks.md]

Those of timm and transformers are found by their names, too: tickets that name them come back, a run records the
version of the package, and what would bring weights or code from elsewhere is refused. It fails if one of them does not
come back, or if a package that is asked for is not installed.
"""
