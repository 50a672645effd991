"""One batch through a network, before anything of its run is written: what does not fit is told, and leaves nothing."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from supermask.checks import cut
from supermask.data.base import Batch, Loaded, Part
from supermask.edges.selection import selected_once
from supermask.methods.method import Method
from supermask.networks.architecture import Architecture, input_shape
from supermask.runs.options import RecipeError
from supermask.runs.trial import first, undisturbed
from supermask.training.hooks import Hooks
from supermask.training.training import Training

_ENOUGH = 2  # of a batch: batch norms take two
_LONGEST = 400  # characters of what an error quotes


def try_out(
    make: Callable[[], nn.Module],
    architecture: Architecture,
    loaded: Loaded,
    *,
    name: str,
    batch: int,
    method: Method,
    training: Training,
    device: torch.device,
) -> None:
    """Let the network that `make` gives, which is for this alone, train on a batch of test data, without a step.

    The states of all random generators stay as they are, and no process waits for another.

    Args:
        make: a network on `device` in the state that training begins with.
        loaded: the data, open.
        name: of the data.
        batch: of training, over all processes.

    Raises:
        RecipeError: the network does not take such inputs, or gives something that the loss does not take.
    """
    with undisturbed(device):  # the network that is trained warns of all again
        found = next(iter(loaded.test(Part())), None)
        if found is None:
            raise RecipeError(f"{name}: the test data give no batch")
        network = make().train()
        plain = type(method).loss is Hooks.loss
        given = first(found, min(batch, _ENOUGH) if plain else batch)
        # A loss of its own may ask for gradients; cross-entropy has no need to keep what they take.
        with (
            selected_once(network),
            torch.set_grad_enabled(not plain),
            torch.autocast(device.type, torch.bfloat16, enabled=training.precision == "bfloat16"),
        ):
            try:
                if plain:
                    _check_outputs(network, given[0], found[1], loaded.classes)
                method.loss(network, network, given, training.label_smoothing)
            except torch.OutOfMemoryError:
                raise
            except Exception as error:  # layers and losses raise whatever they stumble over
                raise RecipeError(_misfit(architecture, name, given, error)) from error


def _check_outputs(network: nn.Module, inputs: Tensor, labels: Tensor, classes: int) -> None:
    """Raise ValueError where cross-entropy has no output for a label; on a GPU it would take the device with it."""
    logits = network(inputs)
    if not isinstance(logits, Tensor) or logits.ndim < 2:
        return  # the loss itself says what is wrong
    highest = classes - 1
    if isinstance(labels, Tensor) and not labels.is_floating_point() and labels.numel():
        highest = max(highest, int(labels.max()))
    if logits.shape[1] <= highest:
        raise ValueError(f"its outputs have the shape {tuple(logits.shape[1:])}, and labels go from 0 to {highest}")


def _misfit(architecture: Architecture, name: str, given: Batch, error: Exception) -> str:
    inputs = given[0]
    shape = tuple(inputs.shape[1:]) if isinstance(inputs, Tensor) else type(inputs).__name__
    made_for = input_shape(architecture)
    takes = "" if made_for in (None, shape) else f" (it is made for {made_for})"
    said = cut(" ".join(f"{type(error).__name__}: {error}".split()), _LONGEST)
    network = cut(str(architecture), _LONGEST)
    return f"{network} cannot be trained on {name}, whose inputs have the shape {shape}{takes}: {said}"
