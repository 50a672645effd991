"""Every family of networks that users bring: converted, stepped, saved and loaded, with equal logits.

    python -m tests.families [torchvision] [timm] [transformers] [--write docs/networks.md]

It fails if one of them does not come back, or if a package that is asked for is not installed.
"""
