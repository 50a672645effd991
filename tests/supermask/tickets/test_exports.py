"""Exported forms: the ticket's network, without this library; a form that fails replaces no file."""

import copy
import io
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from supermask.edges.in_model import all_edges
from supermask.edges.packed import PackedEdges
from supermask.networks.architecture import Architecture, input_shape
from supermask.networks.convert import convert
from supermask.tickets import exports
from supermask.tickets.dense import dense
from supermask.tickets.exports import write_aoti, write_onnx, write_program, write_state_dict
from supermask.tickets.load import load
from supermask.tickets.save import save
from tests.devices import DEVICE
from tests.supermask.tickets.digit_tickets import CONV2, MLP, digits, refused, ticket, transformer
from tests.supermask.tickets.networks import ConvNet, lived, mlp


def check_rounding(found: Tensor, file: Path, x: Tensor, model: nn.Module | None = None) -> None:
    """`found` errs at most twice as much as torch's own float32 on its device, against float64."""
    network = dense(file, model=model)
    expected, found = copy.deepcopy(network).to(found.device)(x.to(found.device)).cpu(), found.cpu()
    exact = copy.deepcopy(network).double()(x.double())
    allowed = 2 * (expected - exact).abs().max() + 1e-6 * exact.abs().max()
    assert found.shape == exact.shape
    assert (found - exact).abs().max() <= allowed


def other_outputs(network: nn.Module, x: Tensor, _info: object) -> Tensor:
    """In place of the network's, so that what is exported does not agree. `exports._run` and `_same_bits` are private:
    no file and no network of a user's gives a wrong export, which is what they are there to find."""
    return network(x) + 1


def onnx_network(path: Path) -> Callable[[Tensor], Tensor]:
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path))
    return lambda x: torch.from_numpy(session.run(None, {"input": x.numpy()})[0])


@pytest.mark.parametrize("form", ["program", "packed", "onnx"])
@pytest.mark.parametrize(
    ("architecture", "fresh", "shape"),
    [(CONV2, CONV2.build, (1, 8, 8)), (None, ConvNet, (3, 8, 8)), (None, transformer, (3, 32, 32))],
)
def test_exports_agree_on_batches_of_any_size(
    form: str, architecture: Architecture | None, fresh: Callable[[], nn.Module], shape: tuple[int, ...], tmp_path: Path
) -> None:
    file = ticket(tmp_path, architecture, fresh(), digits(64, shape))
    model, given = (None, None) if architecture is not None else (fresh(), shape)
    before = None if model is None else {name: tensor.clone() for name, tensor in model.state_dict().items()}
    random = torch.random.get_rng_state()
    path = tmp_path / ("net.onnx" if form == "onnx" else "net.pt2")
    if form == "onnx":
        write_onnx(file, path, shape=given, model=model)
    else:
        write_program(file, path, shape=given, model=model, packed=form == "packed")
    assert torch.equal(torch.random.get_rng_state(), random)
    if model is not None and before is not None:
        assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    network = onnx_network(path) if form == "onnx" else torch.export.load(path).module()
    for count in (1, 3):
        x = digits(count, shape)
        check_rounding(network(x), file, x, fresh() if architecture is None else None)
    assert {each.name for each in tmp_path.iterdir()} == {"ticket.safetensors", path.name}
    assert b"site-packages" not in path.read_bytes()


@pytest.mark.slow
def test_aoti_agrees_on_batches_of_any_size(small: Path, tmp_path: Path) -> None:
    path = tmp_path / "net.pt2"
    random = torch.random.get_rng_state()
    write_aoti(small, path, device=DEVICE)
    assert torch.equal(torch.random.get_rng_state(), random)
    network = torch._inductor.aoti_load_package(str(path), device_index=-1 if DEVICE.index is None else DEVICE.index)
    for count in (1, 3):
        x = digits(count, (3, 32, 32))
        check_rounding(network(x.to(DEVICE)), small, x)


def test_a_packed_program_is_plain_arithmetic_on_two_bits_an_edge(tmp_path: Path) -> None:
    """It runs where this library is not: a ticket's bits and signs, and what torch writes of the graph."""
    architecture = mlp(64, 1024, 1024, 10)
    file = ticket(tmp_path, architecture, architecture.build(), digits(64, (64,)), remaining=0.1)
    path = tmp_path / "net.pt2"
    write_program(file, path, packed=True)
    layers = all_edges(load(file)).values()
    bits = sum(edges.packed.nbytes for edges in layers if isinstance(edges, PackedEdges))
    assert 2 * bits < path.stat().st_size < 2 * bits + 120_000
    x = digits(3, (64,))
    torch.save(x, tmp_path / "x")
    alone = (
        "import sys, torch\n"
        "sys.modules |= {'supermask': None, 'kernels': None}\n"
        "torch.save(torch.export.load('net.pt2').module()(torch.load('x')), 'y')\n"
    )
    subprocess.run([sys.executable, "-c", alone], cwd=tmp_path, check=True)
    check_rounding(torch.load(tmp_path / "y"), file, x)


def test_a_packed_program_of_real_weights_needs_this_library(tmp_path: Path) -> None:
    x = digits(8, (64,))
    file = ticket(tmp_path, MLP, MLP.build(), x, weights="kaiming_uniform")
    write_program(file, tmp_path / "net.pt2", packed=True)
    program = torch.export.load(tmp_path / "net.pt2")
    ours = {str(node.target) for node in program.graph.nodes if str(node.target).startswith("supermask")}
    assert ours == {"supermask.uniform.default"}
    check_rounding(program.module()(x), file, x)


def test_tickets_from_open_files(linear: Path, tmp_path: Path) -> None:
    write_program(io.BytesIO(linear.read_bytes()), tmp_path / "net.pt2", packed=True)
    x = digits(2, (64,))
    check_rounding(torch.export.load(tmp_path / "net.pt2").module()(x), linear, x)


@pytest.mark.parametrize("write", [write_program, write_aoti, write_onnx])
def test_shapes_and_names_that_are_refused(write: Any, small: Path, tmp_path: Path) -> None:
    path = tmp_path / "net.pt2"
    refused(lambda: write(small, path, shape=(1, 32, 32)), str(small), "shape=(1, 32, 32)", "expected input")
    refused(lambda: write(small, path, shape=(3, 32, 0)), "shape=(3, 32, 0)", "without the batch")
    save(lived(convert(ConvNet(), 3), 4, 3, 8, 8), tmp_path / "t", architecture=None)
    refused(lambda: write(tmp_path / "t", path, model=ConvNet()), "without a name", "give shape=")
    if write is not write_onnx:
        refused(lambda: write(small, tmp_path / "net.pt"), "net.pt: ", "name it net.pt2")
    assert not path.exists()


def test_networks_that_torch_does_not_export(tmp_path: Path) -> None:
    class Branching(nn.Sequential):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) if x.sum() > 0 else x

    save(lived(convert(nn.Sequential(nn.Linear(4, 4)), 3), 2, 4), tmp_path / "t", architecture=None)
    model = Branching(nn.Linear(4, 4))
    refused(
        lambda: write_program(tmp_path / "t", tmp_path / "net.pt2", shape=(4,), model=model),
        str(tmp_path / "t"),
        "torch.export does not take the network",
    )
    assert [each.name for each in tmp_path.iterdir()] == ["t"]


def test_outputs_in_lists_and_mappings_are_compared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Several(nn.Sequential):
        def forward(self, x: Tensor) -> dict[str, Any]:
            y = super().forward(x)
            return {"one": y, "more": [y + 1, (y + 2,)]}

    save(lived(convert(nn.Sequential(nn.Linear(4, 4)), 3), 2, 4), tmp_path / "t", architecture=None)
    path = tmp_path / "net.pt2"
    write_program(tmp_path / "t", path, shape=(4,), model=Several(nn.Linear(4, 4)))
    x = torch.randn(2, 4)
    found, expected = (
        torch.export.load(path).module()(x),
        dense(tmp_path / "t", model=nn.Sequential(nn.Linear(4, 4)))(x),
    )
    torch.testing.assert_close(found["more"][1][0], expected + 2)
    run = exports._run

    def other(network: nn.Module, x: Tensor, info: Any) -> Any:
        said = run(network, x, info)
        return said | {"more": [said["more"][0], (said["more"][1][0] + 1,)]}

    monkeypatch.setattr(exports, "_run", other)
    refused(lambda: write_program(tmp_path / "t", path, shape=(4,), model=Several(nn.Linear(4, 4))), "outputs differ")


@pytest.mark.parametrize("package", ["onnx", "onnxscript"])
def test_onnx_without_its_packages(package: str, small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    refused(lambda: write_onnx(small, tmp_path / "net.onnx"), f"needs {package}", 'pip install "supermask[onnx]"')


def test_onnx_is_checked_without_its_runtime(linear: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, x = tmp_path / "net.onnx", digits(3, (64,))
    with monkeypatch.context() as patched:
        patched.setitem(sys.modules, "onnxruntime", None)
        write_onnx(linear, path)
        patched.setattr(exports, "_run", other_outputs)
        refused(lambda: write_onnx(linear, path), "net.onnx: not written: its outputs differ")
    check_rounding(onnx_network(path)(x), linear, x)


def test_a_large_onnx_network_has_its_weights_beside_it(
    linear: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exports, "_ONE_FILE", 1000)  # private: ONNX's own limit is 2 GiB
    path, x = tmp_path / "net.onnx", digits(3, (64,))
    write_onnx(linear, path)
    assert {each.name for each in tmp_path.iterdir()} == {"net.onnx", "net.onnx.data"}
    assert path.stat().st_size < 20_000
    check_rounding(onnx_network(path)(x), linear, x)
    before = {each.name: each.read_bytes() for each in tmp_path.iterdir()}
    refused(lambda: write_onnx(linear, path), "net.onnx.data: is there already")
    assert {each.name: each.read_bytes() for each in tmp_path.iterdir()} == before
    monkeypatch.setattr(exports, "_run", other_outputs)
    refused(lambda: write_onnx(linear, tmp_path / "other.onnx"), "not written")
    assert {each.name for each in tmp_path.iterdir()} == before.keys()


@pytest.mark.parametrize("write", [write_state_dict, write_program, write_onnx])
def test_what_was_there_stays_where_the_file_does_not_hold(
    write: Any, linear: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "net.pt2"
    path.write_bytes(b"before")
    with monkeypatch.context() as patched:
        patched.setattr(exports, "_check_loads_plain", lambda path, network: None)
        patched.setattr(exports, "same_bits", lambda one, two: False)
        patched.setattr(exports, "_run", other_outputs)
        refused(lambda: write(linear, path), f"{path}: not written")
    (tmp_path / "folder.pt2").mkdir()
    refused(lambda: write(linear, tmp_path / "folder.pt2"), "folder.pt2: cannot be written")
    refused(lambda: write(linear, tmp_path / "none" / "net.pt2"), "net.pt2: cannot be written")
    assert path.read_bytes() == b"before"
    assert {each.name for each in tmp_path.iterdir()} == {"net.pt2", "folder.pt2"}


def test_a_network_that_does_not_compile(linear: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_args: Any, **_options: Any) -> None:
        raise RuntimeError("no C++ compiler")

    monkeypatch.setattr("torch._inductor.aoti_compile_and_package", fail)
    refused(lambda: write_aoti(linear, tmp_path / "net.pt2"), "AOTInductor does not compile", "no C++ compiler")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("name", "arguments", "shape"),
    [
        ("mlp", {"sizes": [9, 5, 3]}, (9,)),
        ("mlp", {}, None),
        ("conv4", {}, (3, 32, 32)),
        ("conv2", {"channels": 1, "size": 8}, (1, 8, 8)),
        ("vgg16_bn", {"channels": 1}, (1, 32, 32)),
        ("resnet18", {}, (3, 32, 32)),
        ("resnext29_32x4d", {}, (3, 32, 32)),
        ("convmixer", {}, (3, 32, 32)),
        ("torchvision/resnet18", {}, (3, 224, 224)),
        ("torchvision/inception_v3", {}, (3, 299, 299)),
        ("torchvision/vit_b_16", {}, (3, 224, 224)),
        ("torchvision/vit_h_14", {}, (3, 224, 224)),
        ("torchvision/vit_b_16", {"image_size": 32}, (3, 32, 32)),
        ("torchvision/maxvit_t", {}, (3, 224, 224)),
        ("torchvision/maxvit_t", {"input_size": [448, 448]}, (3, 448, 448)),
        ("torchvision/swin_t", {}, (3, 224, 224)),
        ("elsewhere/net", {}, None),
    ],
)
def test_input_shapes(name: str, arguments: dict[str, Any], shape: tuple[int, ...] | None) -> None:
    """Networks take them: without memory, on the meta device."""
    architecture = Architecture(name=name, arguments=arguments)
    assert input_shape(architecture) == shape
    if shape is not None:
        network = architecture.skeleton().to("meta").eval()
        assert network(torch.empty(2, *shape, device="meta")).shape[0] == 2
