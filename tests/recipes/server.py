"""Runs modules as `python -m` does, in forked processes that have torch and the library already: `command.run` asks it.

Importing torch, its compiler, scikit-learn and what draws takes longer than most of what tests run. A line of standard
input is a request, in JSON; the answer, its exit status, is a line of standard output. Nothing is computed before a
fork, so the processes begin as if each had imported for itself. They end with the exit status, the words and the exit
handlers of `python -m`, but do not take the interpreter down: freeing what was imported would copy all of it first.
"""

import atexit
import gc
import json
import os
import runpy
import signal
import sys
import threading
from typing import Any, NoReturn

import matplotlib.backends.backend_agg
import matplotlib.figure  # noqa: F401
import pandas  # noqa: F401
import scipy.stats  # noqa: F401
import sklearn.datasets
import sklearn.model_selection  # noqa: F401
import torch
import torch._dynamo
import torchvision  # noqa: F401

import supermask.recipes.digits_soft_iep  # noqa: F401


def serve() -> None:
    """Answer requests until there are no more."""
    gc.freeze()  # so that collections in the processes copy nothing of what was imported
    for line in sys.stdin:
        request = json.loads(line)
        child = os.fork()
        if not child:
            become(request)
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


def become(request: dict[str, Any]) -> NoReturn:
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
    status, ended_by = 0, 0
    try:
        runpy.run_module(request["module"], run_name="__main__", alter_sys=True)
    except SystemExit as end:
        status = _status(end.code)
    except BaseException as error:
        sys.excepthook(type(error), error, error.__traceback__)
        status = 1
        if isinstance(error, KeyboardInterrupt):
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            ended_by = signal.SIGINT
    threading._shutdown()  # type: ignore[attr-defined]  # as the interpreter does: it waits for threads, then exits
    atexit._run_exitfuncs()
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except OSError:
        status = 120  # the interpreter's
    if ended_by:
        os.kill(os.getpid(), ended_by)
    os._exit(status & 0xFF)


def _status(code: object) -> int:
    """What `sys.exit(code)` ends with."""
    if code is None or isinstance(code, int):
        return code or 0
    print(code, file=sys.stderr)
    return 1


if __name__ == "__main__":
    assert torch.get_num_threads() == 1 or "OMP_NUM_THREADS" not in os.environ
    serve()
