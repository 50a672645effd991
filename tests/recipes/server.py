"""Runs modules as `python -m` does, in forked processes that have torch and the library already: `command.run` asks it.

Importing torch, its compiler and scikit-learn takes longer than most of what tests run. A line of standard input is a
request, in JSON; the answer, its exit status, is a line of standard output. Nothing is computed before a fork, so the
processes begin as if each had imported for itself.
"""

import json
import os
import runpy
import signal
import sys
from typing import Any

import sklearn.datasets  # noqa: F401
import torch
import torch._dynamo
import torchvision  # noqa: F401

import supermask.recipes.digits_soft_iep  # noqa: F401


def serve() -> None:
    """Answer requests until there are no more."""
    for line in sys.stdin:
        request = json.loads(line)
        child = os.fork()
        if not child:
            become(request)
            return  # the interpreter ends as that of `python -m` does
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


def become(request: dict[str, Any]) -> None:
    """The process that `request` describes, from its begin to its exit."""
    if request["own_group"]:
        os.setsid()
    os.chdir(request["cwd"])
    os.environ.clear()
    os.environ.update(request["environment"])
    for number, path in enumerate((os.devnull, request["out"], request["err"])):
        file = os.open(path, os.O_RDONLY if number == 0 else os.O_WRONLY)
        os.dup2(file, number)
        os.close(file)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.path[0] = request["cwd"]
    sys.argv = [request["module"], *request["arguments"]]
    runpy.run_module(request["module"], run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    assert torch.get_num_threads() == 1 or "OMP_NUM_THREADS" not in os.environ
    serve()
