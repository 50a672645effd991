"""Masked layers compiled, over several processes and traced for a GPU."""

import copy
import os
from collections.abc import Iterator
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.multiprocessing
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode

from supermask.data.base import in_memory
from supermask.edges.in_model import searched_edges
from supermask.edges.selection import one_selection
from supermask.kernels.base.bits import unpack
from supermask.training.loop import Loop
from supermask.training.training import Training
from tests.devices import DEVICE
from tests.ranks import on_ranks
from tests.supermask.networks.layer_cases import CASES, ONE_OF_EACH, attention, draw, input_of, make, small_network


@pytest.fixture
def fresh_compiler() -> Iterator[None]:
    torch._dynamo.reset()
    with torch._dynamo.config.patch(error_on_recompile=True):  # type: ignore[attr-defined]
        yield
    torch._dynamo.reset()


@pytest.mark.usefixtures("fresh_compiler")
@pytest.mark.parametrize("name", [*ONE_OF_EACH, "conv2d_same_circular"])
def test_fullgraph_compile_equals_eager_at_every_rate(name: str) -> None:
    """One graph serves every rate: `remaining` between steps neither recompiles nor is ignored."""
    layer = make(name, weights="scaled_signed_constant")
    twin = copy.deepcopy(layer)
    compiled = torch.compile(layer, backend="aot_eager", fullgraph=True)
    made = torch.compile(lambda: layer.edges(torch.float32), backend="aot_eager", fullgraph=True)
    for step, rate in enumerate((0.3, 0.05, 1.0)):
        layer.edges.remaining = twin.edges.remaining = rate
        for each, run in ((layer, compiled), (twin, twin)):
            each.zero_grad()
            out = run(input_of(name, step))
            out.square().sum().backward()
            each.last = out.detach()
        assert torch.equal(layer.last, twin.last)
        assert torch.equal(layer.edges.scores.grad, twin.edges.scores.grad)
        assert int((made() != 0).sum()) == max(1, round(rate * layer.edges.count))
        with torch.no_grad():
            for each in (layer, twin):
                each.edges.scores.sub_(0.1 * each.edges.scores.grad)


@pytest.mark.usefixtures("fresh_compiler")
def test_fullgraph_compile_of_attention() -> None:
    _, masked = attention(batch_first=True)
    x = draw(2, 5, 12)
    compiled = torch.compile(masked, backend="aot_eager", fullgraph=True)
    for rate in (0.5, 0.1):
        masked.in_proj.edges.remaining = rate
        masked.zero_grad()
        compiled(x, x, x)[0].square().sum().backward()
        grads = [edges.scores.grad.clone() for edges in searched_edges(masked).values()]
        masked.zero_grad()
        out = masked(x, x, x)[0]
        out.square().sum().backward()
        assert torch.equal(compiled(x, x, x)[0], out)
        for grad, edges in zip(grads, searched_edges(masked).values(), strict=True):
            assert torch.equal(grad, edges.scores.grad)


@pytest.mark.parametrize("name", ["adam", "sgdw"])
@pytest.mark.usefixtures("fresh_compiler")
def test_compiled_steps_of_another_optimiser_are_its_steps(name: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the loop, with a rate a step."""
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="aot_eager", fullgraph=True))
    x, y = draw(12, 3, 8, 8), torch.arange(12, device=DEVICE) % 3
    ends = []
    for compiled in (False, True):
        training = Training(epochs=2, lr=0.01, optimiser=name, per="step", compile=compiled)
        model = small_network()
        loop = Loop(
            model=model, loaded=in_memory(x, y, x, y, batch=4, seed=0), training=training, device=torch.device(DEVICE)
        )
        optimiser = training.make_optimiser(model)
        for rate in training.rates():
            loop.run_epoch(optimiser, rate)
        ends.append(list(model.state_dict().values()))
    assert all(torch.equal(a, b) for a, b in zip(*ends, strict=True))
    assert any(not torch.equal(a, b) for a, b in zip(ends[0], small_network().state_dict().values(), strict=True))


@pytest.mark.usefixtures("fresh_compiler")
def test_compiled_steps_under_one_selection_count_every_mask() -> None:
    model = small_network()
    twin = copy.deepcopy(model)
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    optimisers = [torch.optim.SGD(m.parameters(), 0.5) for m in (model, twin)]
    for edges in (*searched_edges(model).values(), *searched_edges(twin).values()):
        edges.ever = torch.zeros_like(edges.mask())
    for step in range(3):
        for m, run, optimiser in zip((model, twin), (compiled, twin), optimisers, strict=True):
            with one_selection(m):
                run(draw(4, 3, 8, 8, seed=step)).square().mean().backward()
            optimiser.step()
            optimiser.zero_grad()
    for ours, theirs in zip(searched_edges(model).values(), searched_edges(twin).values(), strict=True):
        assert torch.equal(ours.scores, theirs.scores)
        assert torch.equal(ours.ever, theirs.ever)
        assert int(unpack(ours.ever, ours.cols).sum()) > int(ours.kept)


@pytest.mark.slow
@pytest.mark.usefixtures("fresh_compiler")
def test_inductor_selects_the_masks_of_eager_code() -> None:
    """Sums may round differently, selections may not: given the scores of a step, each mask is eager's to the bit."""
    model = small_network()
    eager = copy.deepcopy(model)
    compiled = torch.compile(model, fullgraph=True)
    optimiser = torch.optim.SGD(model.parameters(), 0.5, momentum=0.9, weight_decay=1e-4)
    for step in range(6):
        for edges in searched_edges(model).values():
            edges.remaining = (0.3, 0.05)[step % 2]
            edges.ever = torch.zeros_like(edges.mask()) if edges.ever is None else edges.ever.zero_()
        eager.load_state_dict(model.state_dict())
        for run, m in ((compiled, model), (eager, eager)):
            m.zero_grad()
            out = run(draw(4, 3, 8, 8, seed=step))
            out.square().mean().backward()
            m.last = out.detach()
        torch.testing.assert_close(model.last, eager.last, rtol=1e-4, atol=1e-5)
        for ours, theirs in zip(searched_edges(model).values(), searched_edges(eager).values(), strict=True):
            assert torch.equal(ours.ever, theirs.mask())
            assert int(unpack(ours.ever, ours.cols).sum()) == round((0.3, 0.05)[step % 2] * ours.count)
            torch.testing.assert_close(ours.scores.grad, theirs.scores.grad, rtol=1e-3, atol=1e-5)
        optimiser.step()


def train_rank(rank: int, folder: str) -> None:
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    model = small_network(device="cpu")
    optimiser = torch.optim.SGD(model.parameters(), 0.5, momentum=0.9)
    parallel = nn.parallel.DistributedDataParallel(model)
    for step in range(3):
        with one_selection(model):
            parallel(draw(4, 3, 8, 8, seed=2 * step + rank).cpu()).square().mean().backward()
        optimiser.step()
        optimiser.zero_grad()
    found = {name: (edges.scores.detach(), edges.mask()) for name, edges in searched_edges(model).items()}
    torch.save(found, f"{folder}/{rank}.pt")
    torch.distributed.destroy_process_group()


@pytest.mark.slow
def test_data_parallel_ranks_hold_the_same_masks(tmp_path: Path) -> None:
    on_ranks(train_rank, os.fspath(tmp_path))
    first, second = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2))
    initial = searched_edges(small_network(device="cpu"))
    for name, (scores, mask) in first.items():
        assert torch.equal(scores, second[name][0])
        assert torch.equal(mask, second[name][1])
        assert not torch.equal(mask, initial[name].mask())


def engine_backward(loss: Tensor) -> None:
    """What loss.backward() does, without the engine, which asks the driver for the device's streams."""
    order: list[Any] = []

    def visit(node: Any) -> None:
        if node is not None and node not in order:
            for following, _ in node.next_functions:
                visit(following)
            order.append(node)

    visit(loss.grad_fn)
    grads: dict[Any, dict[int, Tensor]] = {loss.grad_fn: {0: torch.ones_like(loss)}}
    with torch.no_grad():
        for node in reversed(order):
            given = grads[node]
            if hasattr(node, "variable"):
                node.variable.grad = given[0]
                continue
            run = node.apply if isinstance(node, torch.autograd.function.BackwardCFunction) else node
            made = run(*(given.get(i) for i in range(len(node._input_metadata))))
            made = made if type(made) is tuple else (made,)
            # A Function's inputs that are no tensors have no next function; here they all stand behind the scores.
            for (following, i), grad in zip(node.next_functions, made, strict=False):
                if following is not None and grad is not None:
                    grads.setdefault(following, {})[i] = grad


@pytest.mark.parametrize("weights", ["signed_constant", "unsigned_constant", "kaiming_uniform"])
@pytest.mark.parametrize("name", [*ONE_OF_EACH, "network"])
def test_a_training_step_never_waits_for_the_gpu(name: str, weights: str) -> None:
    """Traced for a GPU, where fake tensors refuse that a value is read: whole steps, and the pruning between cycles."""
    with FakeTensorMode():
        whole = name == "network"
        search = {"weights": weights, "device": "cuda"}
        model = small_network(**search) if whole else nn.Sequential(make(name, **search))
        layers = list(searched_edges(model).values())
        optimiser = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9, weight_decay=1e-4)
        for edges in layers:
            edges.ever = torch.zeros_like(edges.mask())
        for dtype in (torch.float32, torch.bfloat16):
            x = torch.empty((4, 3, 8, 8) if whole else CASES[name][4], device="cuda", dtype=dtype)
            for selection in (one_selection(model), nullcontext()):
                with selection:
                    out = model(x)
                    assert out.dtype is dtype
                    engine_backward(out.float().square().mean())
                optimiser.step()
                for edges in layers:
                    assert edges.scores.grad.shape == edges.shape
                    for tensor in (out, edges.scores.grad, edges.mask(), edges.constant):
                        assert isinstance(tensor, FakeTensor)
                        assert tensor.device.type == "cuda"
                optimiser.zero_grad()
            for edges in layers:
                edges.remove_unselected()
        assert all((edges.signs is None) == (weights != "unsigned_constant") for edges in layers)
