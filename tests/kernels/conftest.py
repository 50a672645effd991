"""Where the tests of kernels have their tensors."""

import pytest
import torch

from tests.devices import On


@pytest.fixture(scope="session")
def on(device: torch.device) -> On:
    """Takes tensors to the device that tests take, where ops go their usual way."""
    return On(device)


@pytest.fixture
def on_triton(triton_device: torch.device) -> On:
    """Takes tensors to where Triton's kernels run: to the GPU, or nowhere, where they are interpreted."""
    return On(triton_device)
