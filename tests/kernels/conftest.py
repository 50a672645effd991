"""Where the tests of kernels have their tensors. tests/devices.py is imported late: it refuses a device by itself."""

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    import torch

    from tests.devices import On


@pytest.fixture(scope="session")
def on(device: "torch.device") -> "On":
    """Takes tensors to the device that tests take, where ops go their usual way."""
    from tests.devices import On

    return On(device)


@pytest.fixture
def on_triton(triton_device: "torch.device") -> "On":
    """Takes tensors to where Triton's kernels run: to the GPU, or nowhere, where they are interpreted."""
    from tests.devices import On

    return On(triton_device)
