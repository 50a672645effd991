"""What the bits of a result depend on besides the configuration: versions, machine, threads, and the release."""

import os
import platform
import subprocess
from collections.abc import Mapping
from hashlib import sha256
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

import supermask
from supermask.networks.packages import package_of
from supermask.runs.sources import PACKAGE

_ARITHMETIC = "python", "torch", "machine", "threads"
_NETWORKS = "timm", "transformers"
_CODE = "supermask", "commit", "changed", "changes"
_FOLDERS = "supermask/", "kernels/", "recipes/"  # where a file that git does not know may be code
_PATIENCE = 10.0  # seconds, of a disk over a network


def environment(network: str = "") -> dict[str, Any]:
    """Versions, machine and threads of this process, and in a clone of the repository its commit.

    Args:
        network: name of the architecture that is built; the version of timm or transformers is told where it is theirs.
    """
    made_by = package_of(network)
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "machine": platform.machine(),
        "threads": torch.get_num_threads(),
        **({made_by: _version(made_by)} if made_by in _NETWORKS else {}),
        "supermask": supermask.__version__,
        **commit_of(PACKAGE.parent),
    }


def commit_of(root: Path) -> dict[str, Any]:
    """Of the repository whose top `root` is: `commit`, whether the tree was `changed` since, and if so a digest of the
    `changes` to files that it has. Nothing where there is no repository, no git or no commit."""
    said = _git(root, "rev-parse", "--show-toplevel", "HEAD")
    top, _, commit = (said or "").strip().rpartition("\n")
    status = _git(root, "status", "--porcelain") if commit and Path(top) == root.resolve() else None
    if status is None:
        return {}
    lines = [line for line in status.splitlines() if not line.startswith("??") or line[3:].startswith(_FOLDERS)]
    found: dict[str, Any] = {"commit": commit, "changed": bool(lines)}
    if lines and (diff := _git(root, "diff", "--no-ext-diff", "--no-textconv", "HEAD")) is not None:
        found["changes"] = sha256("\n".join([*lines, diff]).encode()).hexdigest()[:12]
    return found


def changed_environment(began: Mapping[str, Any]) -> str | None:
    """Where this environment is not the one a run was begun in, and what of it; None where it is.

    Configurations are the same, and so is their version of results.
    """
    makers = [package for package in _NETWORKS if package in began]
    now = environment() | {package: _version(package) for package in makers}
    names = [name for name in (*_ARITHMETIC, *makers, *_CODE) if began.get(name) != now.get(name)]
    if not names:
        return None
    listed = "; ".join(f"{name} was {_shown(began.get(name))}, is {_shown(now.get(name))}" for name in names)
    if any(name in (*_ARITHMETIC, *makers) for name in names):
        return f"{listed}: the run goes on, but not to the same bits for certain"
    if began.get("changed") or now.get("changed"):
        return f"{listed}: the run goes on, to the same bits where the changes to the clone leave them alone"
    return f"{listed}: the run goes on, to the same bits: both give the same version of results"


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _shown(value: Any) -> str:
    return "not recorded" if value is None else repr(value)


def _git(root: Path, *arguments: str) -> str | None:
    """What git prints of `root`; None where it fails. It writes nothing and runs nothing that a repository asks for."""
    # A hook or another tool that runs this may have pointed git elsewhere.
    variables = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    try:
        done = subprocess.run(
            ["git", "--no-optional-locks", "-c", "core.fsmonitor=false", "-C", str(root), *arguments],
            env=variables,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=_PATIENCE,
            check=False,
        )
    except (OSError, ValueError, subprocess.SubprocessError):
        return None
    return done.stdout.decode(errors="replace") if done.returncode == 0 else None
