"""Kernels run in Triton's interpreter here; the variables count only if they stand before the first import."""

import os
import signal

os.environ["TRITON_INTERPRET"] = "1"
# The tensors of tests are small: a second thread mostly waits for the first, and for long where cores are shared.
os.environ["OMP_NUM_THREADS"] = "1"

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # so a shell begins what it runs in the background
    signal.signal(signal.SIGINT, signal.default_int_handler)

import pytest
from hypothesis import settings

# An interpreted kernel takes milliseconds a program, so hypothesis' 200 ms deadline says nothing about the code.
settings.register_profile("default", deadline=None, max_examples=25, derandomize=True)
settings.load_profile("default")


@pytest.fixture
def interpreted(monkeypatch: pytest.MonkeyPatch) -> None:
    """CPU tensors take the Triton launcher."""
    monkeypatch.setenv("SUPERMASK_KERNELS", "triton")
