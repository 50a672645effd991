"""Importing the project has no effects: no GPU is touched, nothing is compiled or started, no op registered twice."""

import subprocess
import sys

import pytest

from tests.places import ROOT

LEAN = """
import importlib, pkgutil, subprocess, sys
import torch, torch.utils.cpp_extension

def refuse(what):
    def called(*args, **kwargs):
        raise AssertionError(f"an import called {what}")
    return called

for owner, names in {
    torch.cuda: ["_lazy_init", "init", "is_available", "device_count", "current_device", "get_device_properties",
                 "get_device_capability", "current_stream", "synchronize"],
    torch: ["compile"],
    torch.utils.cpp_extension: ["load", "load_inline"],
    subprocess: ["Popen", "run", "check_output", "check_call"],
}.items():
    for name in names:
        setattr(owner, name, refuse(f"{owner.__name__}.{name}"))
import triton
from triton.runtime.jit import JITFunction
triton.compile = refuse("triton.compile")
JITFunction.run = refuse("a kernel")
JITFunction.warmup = refuse("warmup of a kernel")
type(triton.runtime.driver).active = property(refuse("triton.runtime.driver.active"))

registered = []
custom_op = torch.library.custom_op
def counting(name, *args, **kwargs):
    registered.append(name)
    return custom_op(name, *args, **kwargs)
torch.library.custom_op = counting
generator = torch.get_rng_state()
threads, grad, dtype = torch.get_num_threads(), torch.is_grad_enabled(), torch.get_default_dtype()

def missing(name):
    raise ImportError(name)

imported = []
for module in pkgutil.walk_packages(importlib.import_module("supermask").__path__, "supermask.", onerror=missing):
    if not module.name.endswith(".__main__"):
        importlib.import_module(module.name)
        imported.append(module.name)

expected = {"supermask.kernels.subnet.op", "supermask.networks.convert", "supermask.recipes.digits_ep"}
assert expected <= set(imported), imported
assert registered and len(registered) == len(set(registered)), sorted(registered)
assert all(name.startswith("supermask::") for name in registered), registered
optional = {"matplotlib", "mlflow", "pandas", "scipy", "sklearn", "tensorboard", "wandb"}
assert not optional & set(sys.modules), "optional packages wait for their use"
assert not torch.cuda.is_initialized()
assert torch.equal(torch.get_rng_state(), generator)
assert (torch.get_num_threads(), torch.is_grad_enabled(), torch.get_default_dtype()) == (threads, grad, dtype)
print(len(imported), "modules")
"""

WITHOUT_TRITON = """
import sys
sys.modules["triton"] = None
import torch
from supermask.networks.layers import SupermaskLinear
from supermask.kernels.base import bits

layer = SupermaskLinear(40, 3, seed=0, remaining=0.25)
layer(torch.ones(2, 40)).square().sum().backward()
assert int((layer.weight != 0).sum()) == 30
assert bool((layer.edges.scores.grad != 0).any())
try:
    bits.pack_triton(torch.ones(3, 40, dtype=torch.bool))
except RuntimeError as error:
    assert "triton is not installed" in str(error), error
else:
    raise AssertionError("a kernel started without Triton")
print("worked")
"""


NAMES = """
import ast, sys
import supermask

assert not {"tyro", "rich", "constriction", "torchvision"} & set(sys.modules), "rooms wait to be asked for"
later = {}
for block in ast.parse(open(supermask.__file__).read()).body:
    if isinstance(block, ast.If):
        later |= {alias.name: line.module for line in block.body for alias in line.names}
modules = {"exports": "supermask.tickets.exports", "trackers": "supermask.runs.trackers"}
assert later | modules == supermask._LATER
assert sorted(set(dir(supermask)) & set(supermask.__all__)) == sorted(supermask.__all__)
assert len(supermask.__all__) == len({id(getattr(supermask, name)) for name in supermask.__all__})
print("named")
"""


def test_the_front_door_has_what_it_names_and_imports_rooms_when_they_are_asked_for() -> None:
    assert run(NAMES, "0") == "named\n"


@pytest.mark.parametrize("interpret", ["0", "1"])
def test_imports_have_no_effects(interpret: str) -> None:
    assert run(LEAN, interpret).endswith(" modules\n")


def test_without_triton_the_cpu_path_works() -> None:
    assert run(WITHOUT_TRITON, "0") == "worked\n"


def run(program: str, interpret: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=ROOT,
        env={"PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT), "TRITON_INTERPRET": interpret, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout
