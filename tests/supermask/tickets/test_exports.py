"""Exported forms: the ticket's network, on real images and without this library; a form that fails replaces no file."""

import copy
import io
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
import torch.nn.functional as F
import torchvision
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torchvision.models import VisionTransformer

from supermask.edges.in_model import all_edges
from supermask.edges.packed import PackedEdges
from supermask.networks.architecture import Architecture, input_shape
from supermask.networks.convert import convert
from supermask.tickets import exports
from supermask.tickets.dense import dense
from supermask.tickets.errors import TicketError
from supermask.tickets.exports import write_aoti, write_onnx, write_program, write_state_dict
from supermask.tickets.load import load
from supermask.tickets.save import save
from tests.supermask.tickets.test_save import ConvNet, Masked, Tied, lived, mlp, one_linear

CONV2 = Architecture(name="conv2", arguments={"channels": 1, "size": 8, "widths": [32, 32], "hidden": [64]})
SMALL = Architecture(name="resnet18", arguments={"width": 0.25})  # for 32x32 images
RESNET = Architecture(name="torchvision/resnet18", arguments={"num_classes": 10})
MLP = mlp(64, 96, 10)


def transformer() -> nn.Module:
    """torchvision's vision transformer, small."""
    return VisionTransformer(
        image_size=32, patch_size=8, num_layers=2, num_heads=3, hidden_dim=48, mlp_dim=96, num_classes=10
    )


@cache
def digits(count: int, shape: tuple[int, ...]) -> Tensor:
    """Handwritten digits, enlarged and with as many channels as asked for."""
    images = torch.tensor(load_digits().images[:count], dtype=torch.float32)[:, None] / 8 - 1
    if len(shape) == 1:
        return images.reshape(count, *shape)
    return F.interpolate(images, shape[1:]).expand(-1, shape[0], -1, -1).contiguous()


def ticket(folder: Path, architecture: Architecture | None, fresh: nn.Module, x: Tensor, **saving: Any) -> Path:
    """A ticket of `fresh`, its statistics those of `x` and its other tensors none that it is built with."""
    conversion = {key: saving.pop(key) for key in ("weights", "bias", "norm", "remaining") if key in saving}
    model = convert(fresh, 7, **{"bias": "freeze", "norm": "freeze"} | conversion)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        model.train()(x)
        for module in model.modules():
            for name in ("weight", "bias"):
                tensor = {**module._parameters, **module._buffers}.get(name)
                if tensor is not None:
                    tensor.add_(0.1 * torch.randn(tensor.shape, generator=generator))
    save(model, folder / "ticket.safetensors", architecture=architecture, **{"encoding": "raw"} | saving)
    return folder / "ticket.safetensors"


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A ticket of a residual network."""
    return ticket(tmp_path_factory.mktemp("small"), SMALL, SMALL.build(), digits(64, (3, 32, 32)), remaining=0.3)


@pytest.fixture(scope="module")
def linear(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A ticket of linear layers, quick to export."""
    return ticket(tmp_path_factory.mktemp("linear"), MLP, MLP.build(), digits(64, (64,)))


@pytest.fixture
def plain_attention() -> Iterator[None]:
    """Attention without the fused kernel, which adds up in another order."""
    torch.backends.mha.set_fastpath_enabled(False)
    yield
    torch.backends.mha.set_fastpath_enabled(True)


def same(one: Tensor, two: Tensor) -> bool:
    return one.dtype is two.dtype and torch.equal(one, two)


def check_rounding(found: Tensor, file: Path, x: Tensor, model: nn.Module | None = None) -> None:
    """`found` errs at most twice as much as torch's own float32, against float64."""
    network = dense(file, model=model)
    expected = network(x)
    exact = copy.deepcopy(network).double()(x.double())
    allowed = 2 * (expected - exact).abs().max() + 1e-6 * exact.abs().max()
    assert found.shape == exact.shape
    assert (found - exact).abs().max() <= allowed


def other_outputs(network: nn.Module, x: Tensor, _info: object) -> Tensor:
    """In place of the network's, so that what is exported does not agree."""
    return network(x) + 1


def refused(call: Callable[[], Any], *parts: str) -> None:
    with pytest.raises(TicketError) as caught:
        call()
    for part in parts:
        assert part in str(caught.value), caught.value


@pytest.mark.usefixtures("plain_attention")
@pytest.mark.parametrize("policy", ["drop", "freeze"])
@pytest.mark.parametrize(
    ("architecture", "fresh", "shape"),
    [
        (MLP, MLP.build, (64,)),
        (CONV2, CONV2.build, (1, 8, 8)),
        (RESNET, RESNET.build, (3, 64, 64)),
        (None, transformer, (3, 32, 32)),
        (None, ConvNet, (3, 8, 8)),
    ],
)
def test_dense_gives_the_logits_to_the_bit(
    architecture: Architecture | None, fresh: Callable[[], nn.Module], shape: tuple[int, ...], policy: str,
    tmp_path: Path,
) -> None:  # fmt: skip
    norm = "freeze" if policy == "freeze" else "non_affine"
    file = ticket(tmp_path, architecture, fresh(), digits(16, shape), bias=policy, norm=norm)

    def model() -> nn.Module | None:
        return fresh() if architecture is None else None

    network = dense(file, model=model())
    assert not any(tensor.requires_grad or tensor.is_meta for tensor in network.state_dict(keep_vars=True).values())
    assert not any(module.training for module in network.modules())
    assert {type(module) for module in network.modules()} == {type(module) for module in fresh().modules()}
    original = fresh().state_dict()
    assert {name: (t.shape, t.dtype) for name, t in network.state_dict().items()} == {
        name: (t.shape, t.dtype) for name, t in original.items()
    }
    searched = load(file, model=model(), weights="cached")
    for count in (1, 7):
        x = digits(count, shape)
        assert same(network(x), searched(x))


def test_fused_attention_differs_in_rounding_only(tmp_path: Path) -> None:
    x = digits(8, (3, 32, 32))
    file = ticket(tmp_path, None, transformer(), x)
    torch.testing.assert_close(dense(file, model=transformer())(x), load(file, model=transformer())(x))


@pytest.mark.parametrize("saving", [{"precision": "bfloat16"}, {"fold": True}, {"fold": True, "norm": "non_affine"}])
def test_dense_of_narrowed_and_folded_tickets(saving: dict[str, Any], tmp_path: Path) -> None:
    x = digits(16, (3, 32, 32))
    file = ticket(tmp_path, SMALL, SMALL.build(), x, **saving)
    network = dense(file)
    assert same(network(x), load(file, weights="cached")(x))
    if "fold" in saving:
        norm: Any = network.get_submodule("stem.norm1")
        assert torch.equal(norm.running_mean, torch.zeros(16))
        assert torch.equal(norm.running_var, torch.full((16,), 1 - norm.eps))
        assert norm.num_batches_tracked == 0


@pytest.mark.parametrize("weights", ["unsigned_constant", "kaiming_normal", "kaiming_uniform"])
def test_dense_of_every_distribution(weights: str, tmp_path: Path) -> None:
    x = digits(16, (64,))
    file = ticket(tmp_path, MLP, MLP.build(), x, weights=weights)
    assert same(dense(file)(x), load(file, weights="cached")(x))


def coats_and_flips(folder: Path) -> Path:
    layer = one_linear(seed=1)
    coats = torch.tensor([[[15, 0, 0, 0]] * 4, [[5, 0, 0, 0]] * 4], dtype=torch.int32)
    flips = torch.tensor([[3, 0, 0, 0]] * 4, dtype=torch.int32)
    layer.edges = PackedEdges((4, 4), coats, flips=flips, seed=3, layer=0, weights="signed_constant", constant=0.3)
    save(layer, folder / "t", architecture=None)
    return folder / "t"


def test_coats_and_flips(tmp_path: Path) -> None:
    file, x = coats_and_flips(tmp_path), torch.randn(2, 4)
    expected = load(file, model=nn.Linear(4, 4), weights="cached")(x)
    assert same(dense(file, model=nn.Linear(4, 4))(x), expected)
    write_program(file, tmp_path / "t.pt2", shape=(4,), model=nn.Linear(4, 4), packed=True)
    torch.testing.assert_close(torch.export.load(tmp_path / "t.pt2").module()(x), expected)


def test_a_model_keeps_its_dtype(linear: Path) -> None:
    network, x = dense(linear, model=MLP.build().double()), digits(4, (64,))
    assert same(network(x.double()), copy.deepcopy(dense(linear)).double()(x.double()))


def test_tied_tensors(tmp_path: Path) -> None:
    """They stay one in the network, and are there under each name in the file."""
    save(lived(convert(Tied(), 3, bias="train"), 4, 9), tmp_path / "t", architecture=None)
    x = torch.randn(4, 9)
    expected = load(tmp_path / "t", model=Tied(), weights="cached")(x)
    network: Any = dense(tmp_path / "t", model=Tied())
    assert network.out.weight is network.embedding.weight
    assert same(network(x), expected)
    write_state_dict(tmp_path / "t", tmp_path / "state", model=Tied())
    loaded = Tied()
    loaded.load_state_dict(safetensors.torch.load_file(tmp_path / "state"))
    assert same(loaded(x), expected)


def test_state_dict_is_that_of_torchvisions_own_network(tmp_path: Path) -> None:
    x = digits(8, (3, 64, 64))
    file = ticket(tmp_path, RESNET, RESNET.build(), x, bias="drop", remaining=0.2)
    write_state_dict(file, tmp_path / "net.safetensors")
    network = torchvision.models.resnet18(num_classes=10)
    network.load_state_dict(safetensors.torch.load_file(tmp_path / "net.safetensors"), strict=True)
    assert same(network.eval()(x), load(file, weights="cached")(x))


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
    write_aoti(small, path)
    assert torch.equal(torch.random.get_rng_state(), random)
    network = torch._inductor.aoti_load_package(str(path))
    for count in (1, 3):
        x = digits(count, (3, 32, 32))
        check_rounding(network(x), small, x)


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


def test_models_that_do_not_fit_are_left_as_they_were(linear: Path, tmp_path: Path) -> None:
    masked = convert(MLP.build(), 7)
    other = mlp(64, 96, 11).build()
    biased, folded = tmp_path / "biased", tmp_path / "folded"
    save(lived(convert(nn.Sequential(nn.Linear(4, 4)), 3, bias="freeze"), 2, 4), biased, architecture=None)
    plain = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4, affine=False))
    save(lived(convert(copy.deepcopy(plain), 3), 2, 4), folded, architecture=None, fold=True)
    for file, model, parts in [
        (linear, masked, ("MLP has masked layers, 'fc1', 'fc2'", "before supermask.convert")),
        (linear, other, ("layer 'fc2': shape (10, 96) in the ticket, (11, 96) in the network",)),
        (biased, nn.Sequential(nn.Linear(4, 4, bias=False)), ("layer '0' has a bias in the ticket, and none in",)),
        (folded, plain, ("batch norm '1' is folded", "fold=False")),
    ]:
        before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        refused(lambda file=file, model=model: dense(file, model=model), str(file), *parts)  # type: ignore[misc]
        assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    refused(lambda: dense(biased), "names no architecture", "model=")
    save(lived(Masked(), 3, 2, 6, 6), tmp_path / "t", architecture=None)
    refused(lambda: dense(tmp_path / "t", model=Masked()), "Masked has masked layers, 'conv', 'fc'")
    with pytest.raises(TypeError, match="a network and not its class"):
        dense(linear, model=nn.Linear)  # type: ignore[arg-type]


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
    monkeypatch.setattr(exports, "_ONE_FILE", 1000)
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
        patched.setattr(exports, "_same_bits", lambda one, two: False)
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
