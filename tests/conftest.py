"""What stands before the first import: the device that tests take, and Triton's interpreter where that is the CPU."""

import os
import signal

if os.environ.get("SUPERMASK_TEST_DEVICE", "cpu").partition(":")[0] == "cpu":
    os.environ["TRITON_INTERPRET"] = "1"
else:
    os.environ.pop("TRITON_INTERPRET", None)
# The tensors of tests are small: a second thread mostly waits for the first, and for long where cores are shared.
os.environ["OMP_NUM_THREADS"] = "1"

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # so a shell begins what it runs in the background
    signal.signal(signal.SIGINT, signal.default_int_handler)

from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

from tests.interpreter import hasten

if TYPE_CHECKING:
    import torch

# An interpreted kernel takes milliseconds a program, so hypothesis' 200 ms deadline says nothing about the code.
settings.register_profile("default", deadline=None, max_examples=25, derandomize=True)
settings.load_profile("default")

if "TRITON_INTERPRET" in os.environ:
    hasten()

os.fsync = lambda _: None  # no test takes the power away; those that watch or fail it put their own in its place


def pytest_configure() -> None:
    """A device that is not there ends the run before its first test."""
    try:
        from tests import devices
    except ValueError as error:
        raise pytest.UsageError(str(error)) from error
    if devices.ON_GPU:
        devices.exact_products()


@pytest.fixture(scope="session")
def device() -> "torch.device":
    """The device that tests take (tests/devices.py)."""
    from tests.devices import DEVICE

    return DEVICE


@pytest.fixture
def triton_device(device: "torch.device", monkeypatch: pytest.MonkeyPatch) -> "torch.device":
    """Where Triton's kernels run: on the GPU, or interpreted, as those of CPU tensors."""
    from tests.devices import kernels_of

    monkeypatch.setenv("SUPERMASK_KERNELS", kernels_of("triton"))
    return device
