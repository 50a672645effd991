"""What a ticket can be written to, read from and stored as: file objects, folders, encodings, bfloat16, folded batch
norms, earlier versions; and how much memory reading takes."""

import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from supermask import Architecture, SupermaskLinear, inspect, load, save, save_folder, verify
from supermask.edges.in_model import all_edges
from supermask.networks.convert import convert
from supermask.tickets import exports
from supermask.tickets.errors import TicketError
from tests.places import VERSION_1, VERSION_2
from tests.supermask.tickets.networks import ConvNet, lived, mlp, searched


def parts(network: nn.Module) -> dict[str, torch.Tensor]:
    """Everything a network computes with."""
    weights = {f"{name} weights": edges(torch.float32) for name, edges in all_edges(network).items()}
    return weights | {name: t for name, t in network.state_dict().items() if ".edges." not in name}


def same(a: nn.Module, b: nn.Module) -> bool:
    one, two = parts(a), parts(b)
    return one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)


@pytest.mark.parametrize("encoding", ["raw", "ans"])
def test_file_objects(encoding: Any, ticket: Path, tmp_path: Path) -> None:
    """What follows a position in a larger file is a ticket, too; where a file ends, so does the ticket."""
    network = load(ticket)
    buffer = io.BytesIO(b"before")
    buffer.seek(6)
    info = save(network, buffer, architecture=mlp(9, 5, 3), encoding=encoding)
    assert len(buffer.getvalue()) == 6 + info.file_bytes
    for read in (load, inspect, verify):
        buffer.seek(6)
        read(buffer)
    buffer.seek(6)
    assert same(load(buffer), network)
    buffer.seek(0)
    with pytest.raises(TicketError, match="BytesIO"):
        load(buffer)
    with open(tmp_path / "t", "wb") as file:
        save(network, file, architecture=mlp(9, 5, 3), encoding=encoding)
    assert (tmp_path / "t").read_bytes() == buffer.getvalue()[6:]


def test_nothing_is_written_to_a_file_object_before_the_ticket_is_whole(ticket: Path) -> None:
    buffer = io.BytesIO()
    with pytest.raises(TicketError, match="BytesIO"):
        save(load(ticket), buffer, architecture=mlp(9, 5, 4))
    assert buffer.getvalue() == b""


def test_folder(ticket: Path, tmp_path: Path) -> None:
    network, folder = load(ticket), tmp_path / "hub" / "digits"
    info = save_folder(network, folder, architecture=mlp(9, 5, 3), precision="bfloat16")
    assert sorted(path.name for path in folder.iterdir()) == ["README.md", "config.json", "model.safetensors"]
    config = json.loads((folder / "config.json").read_text())
    assert (config["sha256"], config["architecture"]) == (info.sha256, mlp(9, 5, 3).to_json())
    assert (folder / "README.md").read_text().startswith("---\nlibrary_name: supermask\n")
    assert inspect(folder).sha256 == verify(str(folder)).sha256 == info.sha256
    assert same(load(folder), load(folder / "model.safetensors"))
    (folder / "README.md").write_text("mine")
    save_folder(network, folder, architecture=None)
    assert (folder / "README.md").read_text() == "mine"
    assert inspect(folder).architecture is None
    (tmp_path / "empty").mkdir()
    with pytest.raises(TicketError, match=r"empty/model\.safetensors: no such file"):
        load(tmp_path / "empty")
    with pytest.raises(TicketError, match="cannot be made"):
        save_folder(network, ticket / "inside", architecture=None)


@settings(max_examples=20)
@given(
    sizes=st.lists(st.sampled_from([1, 7, 31, 33, 127, 128, 129]), min_size=2, max_size=4),
    remaining=st.sampled_from([0.001, 0.1, 0.5, 0.9, 1.0]),
    moved=st.sampled_from([0.0, 0.05, 1.0]),
    seed=st.integers(0, 2**64 - 1),
    magnitude=st.sampled_from(["abs", "raw"]),
    scores=st.sampled_from(["kaiming_uniform", "kaiming_normal"]),
)
@pytest.mark.filterwarnings("ignore::supermask.SparseLayerWarning")
def test_every_encoding_of_any_network(
    tmp_path_factory: pytest.TempPathFactory, sizes: list[int], remaining: float, moved: float, seed: int,
    magnitude: Any, scores: Any,
) -> None:  # fmt: skip
    """Masks at their initial scores, moved a little, and moved much."""
    folder = tmp_path_factory.mktemp("any")
    model = convert(mlp(*sizes).build(), seed, remaining=remaining, magnitude=magnitude, scores=scores).eval()
    with torch.no_grad():
        for edges in all_edges(model).values():
            noise = torch.randn(edges.shape, generator=torch.Generator().manual_seed(seed % 2**31))
            edges.scores.add_(moved * noise)  # type: ignore[operator]
    x = torch.randn(3, sizes[0])
    infos = {}
    for encoding in ("raw", "ans"):
        infos[encoding] = save(model, folder / encoding, architecture=mlp(*sizes), encoding=encoding)  # type: ignore[arg-type]
        assert verify(folder / encoding) == inspect(folder / encoding)
        assert torch.equal(load(folder / encoding, weights="cached")(x), model(x))
    assert infos["ans"].plane_bytes <= infos["raw"].plane_bytes
    assert [layer.kept for layer in infos["ans"].layers] == [layer.kept for layer in infos["raw"].layers]


def test_bfloat16(tmp_path: Path) -> None:
    """Statistics and biases are rounded, once, and are float32 again when loaded."""
    model = lived(convert(ConvNet(), 3, bias="freeze", norm="freeze"), 4, 3, 8, 8)
    info = save(model, tmp_path / "t", architecture=None, precision="bfloat16")
    assert {tensor.dtype for tensor in info.tensors} == {"BF16", "I64"}
    network = load(tmp_path / "t", model=ConvNet())
    exact = model.state_dict()
    for name, tensor in parts(network).items():
        if not name.endswith(" weights"):
            assert tensor.dtype == exact[name].dtype
            expected = exact[name].to(torch.bfloat16).float() if tensor.is_floating_point() else exact[name]
            assert torch.equal(tensor, expected)
    save(network, tmp_path / "again", architecture=None, precision="bfloat16")
    assert (tmp_path / "again").read_bytes() == (tmp_path / "t").read_bytes()
    with pytest.raises(TicketError, match=r"is torch\.bfloat16 already"):
        save(searched(mlp(9, 5, 3), 4, 9).to(torch.bfloat16), tmp_path / "no", architecture=None, precision="bfloat16")


@pytest.mark.parametrize("norm", ["non_affine", "freeze"])
@pytest.mark.parametrize("precision", ["exact", "bfloat16"])
def test_folded(norm: Any, precision: Any, tmp_path: Path) -> None:
    """A batch norm is one scale and one shift: the same network up to rounding, in fewer bytes."""
    model = lived(convert(ConvNet(), 3, bias="freeze", norm=norm), 4, 3, 8, 8)
    with torch.no_grad():
        model.bn.running_var.mul_(3)  # type: ignore[operator,union-attr]
    full = save(model, tmp_path / "full", architecture=None, precision=precision)
    info = save(model, tmp_path / "t", architecture=None, fold=True, precision=precision)
    assert info.folded == ("average", "bn")
    assert info.file_bytes < full.file_bytes
    names = {tensor.name for tensor in info.tensors}
    assert {"bn.weight", "bn.bias"} <= names
    assert not any("running" in name or "tracked" in name for name in names)
    network, x = load(tmp_path / "t", model=ConvNet(), weights="cached"), torch.randn(5, 3, 8, 8)
    expected, found = model.eval().double()(x.double()), network(x)
    bound = 1e-5 if precision == "exact" else 0.03
    assert (found - expected).abs().max() <= bound * expected.abs().max()
    bn: Any = network.bn
    source: Any = model.bn
    y = torch.randn(2, 6, 4, 4)
    if precision == "exact":
        torch.testing.assert_close(bn(y), source(y.double()).float())
    save(network, tmp_path / "again", architecture=None, fold=True, precision=precision)
    torch.testing.assert_close(
        load(tmp_path / "again", model=ConvNet(), weights="cached")(x), found, rtol=2**-7 if bound == 0.03 else 1e-5,
        atol=bound * float(found.abs().max()),
    )  # fmt: skip


def test_folded_tickets_of_other_networks(tmp_path: Path) -> None:
    class Other(ConvNet):
        def __init__(self) -> None:
            super().__init__()
            self.bn = nn.BatchNorm2d(6, track_running_stats=False)

    save(lived(convert(ConvNet(), 3), 4, 3, 8, 8), tmp_path / "t", architecture=None, fold=True)
    with pytest.raises(TicketError, match="batch norm 'bn': folded in the ticket, not in the network"):
        load(tmp_path / "t", model=Other())


LOGITS = {
    "version1_mlp": [[0.1607, -0.0784, 0.0000], [0.5878, 0.2287, -0.1981]],
    "version1_conv2": [[-0.0977, -0.0387, -0.1125]],
}
COATED = [
    [-1.4756, -1.9457, 0.1768, -0.3797, -0.7240, -0.8306, -1.5761, -0.2248, -0.4129, -2.1758],
    [-0.8050, -0.3902, 1.4578, -1.6579, 0.8235, 3.1760, -0.3344, 0.8333, 0.2576, -0.4859],
]


@pytest.mark.parametrize("name", LOGITS)
def test_tickets_of_version_1_load(name: str, tmp_path: Path) -> None:
    """Files that the first release wrote, and the logits that it gave."""
    path = VERSION_1 / f"{name}.safetensors"
    info = verify(path)
    assert info.version == 1
    assert [layer.encoding for layer in info.layers] == ["raw"] * len(info.layers)
    network = load(path)
    x = torch.linspace(-1, 1, 18).view(2, 9) if "mlp" in name else torch.linspace(-1, 1, 64).view(1, 1, 8, 8)
    assert torch.equal(network(x).mul(1e4).round(), torch.tensor(LOGITS[name]).mul(1e4).round())
    again = save(network, tmp_path / "t", architecture=info.architecture)
    assert again.version == 3
    assert same(load(tmp_path / "t"), network)


@pytest.mark.parametrize("encoding", ["raw", "ans"])
def test_tickets_of_version_2_load(encoding: str, tmp_path: Path) -> None:
    """Files that were written before planes had names, of three coats and flips, and the logits that they gave."""
    path = VERSION_2 / f"version2_coats_{encoding}.safetensors"
    info = verify(path)
    assert info.version == 2
    assert list(info.layers[0].planes) == ["mask", "mask.1", "mask.2", "flips"]
    assert info.layers[0].values == {"constant": float(torch.tensor(0.3))}
    network = load(path, weights="cached")
    x = torch.linspace(-1, 1, 128).view(2, 64)
    assert torch.equal(network(x).mul(1e4).round(), torch.tensor(COATED).mul(1e4).round())
    again = save(network, tmp_path / "t", architecture=info.architecture, encoding=encoding)  # type: ignore[arg-type]
    assert again.version == 3
    assert again.layers == info.layers
    assert same(load(tmp_path / "t"), network)


MEMORY = """
import sys, numpy, torch
torch.set_num_threads(1)
import supermask
from supermask import load
from supermask.edges.in_model import all_edges
from supermask.kernels.base.bits import pack
def status(name):
    return 1024 * int(next(l for l in open("/proc/self/status") if l.startswith(name)).split()[1])
load(sys.argv[2])  # what is imported and allocated once
before = status("VmRSS")
with open("/proc/self/clear_refs", "w") as file:
    file.write("5")
network = load(sys.argv[1], weights=sys.argv[3])
peak = status("VmHWM") - before
held = sum(b.numel() * b.element_size() for b in [*network.buffers(), *network.parameters()])
largest = max(edges.count for edges in all_edges(network).values())
print(peak, held, largest)
"""


@pytest.mark.parametrize("encoding", ["raw", "ans"])
def test_reading_takes_the_network_and_one_layer(encoding: Any, tmp_path: Path) -> None:
    """Peak memory above what the network of packed bits holds, mask and signs: less than one layer as float32."""
    sizes = [2048, 2048, 10]
    save(
        convert(mlp(*sizes).build(), 3, remaining=0.3).eval(),
        tmp_path / "t",
        architecture=mlp(*sizes),
        encoding=encoding,
    )
    save(
        convert(mlp(64, 64, 10).build(), 3).eval(), tmp_path / "small", architecture=mlp(64, 64, 10), encoding=encoding
    )
    ran = subprocess.run(
        [sys.executable, "-c", MEMORY, str(tmp_path / "t"), str(tmp_path / "small"), "materialised"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    peak, held, largest = map(int, ran.stdout.split())
    assert largest == 2048 * 2048
    assert held < 2.2 * largest / 8 + 1e5  # packed: two bits an edge
    assert peak < held + 4 * largest


def test_architectures_that_compute_buffers(tmp_path: Path) -> None:
    """What is stored nowhere, and made where the network is built, is there."""

    architecture = Architecture(name="torchvision/swin_t", arguments={"num_classes": 4})
    model = convert(architecture.build(), 5, remaining=0.1, skip=["features.[1-7]*"]).eval()
    save(model, tmp_path / "t", architecture=architecture)
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(load(tmp_path / "t", weights="cached")(x), model(x))


class TiedNorms(nn.Module):
    """Two batch norms with one scale and one shift."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(8, 8)
        self.one, self.two = nn.BatchNorm1d(8), nn.BatchNorm1d(8)
        self.two.weight, self.two.bias = self.one.weight, self.one.bias

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.two(self.fc(self.one(x)))


def tied_norms() -> nn.Module:
    """Two norms of one scale, which is not 1."""
    model = lived(convert(TiedNorms(), 3, norm="freeze"), 5, 8)
    with torch.no_grad():
        model.one.weight.copy_(torch.linspace(0.5, 2, 8))  # type: ignore[union-attr,operator]
    return model.eval()


def test_tied_norms_are_folded_apart(tmp_path: Path) -> None:
    """Their statistics differ, so a scale of both would be that of neither."""
    model, x = tied_norms(), torch.randn(4, 8)
    save(model, tmp_path / "t", architecture=None, fold=True)
    torch.testing.assert_close(load(tmp_path / "t", model=TiedNorms(), weights="cached")(x), model(x))


def test_tied_norms_keep_their_scale(tmp_path: Path) -> None:
    model = tied_norms()
    save(model, tmp_path / "t", architecture=None)
    network: Any = load(tmp_path / "t", model=TiedNorms(), weights="cached")
    x = torch.randn(4, 8)
    assert torch.equal(network(x), model.eval()(x))
    assert network.two.weight is network.one.weight
    assert torch.equal(exports.dense(tmp_path / "t", model=TiedNorms())(x), network(x))


def test_under_a_default_device(ticket: Path, tmp_path: Path) -> None:
    """Whatever device torch makes tensors on, tickets are read on the CPU, and searched layers stay where they are."""
    network = load(ticket)
    with torch.device("meta"):
        info = save(network, tmp_path / "t", architecture=mlp(9, 5, 3))
        assert verify(tmp_path / "t") == info
        again = load(tmp_path / "t")
        layer = SupermaskLinear(9, 5, seed=1, device="cpu")
        assert layer.edges.mask().device.type == "cpu"
    assert same(again, network)


def test_networks_on_the_meta_device_are_refused_as_they_are(ticket: Path) -> None:
    with torch.device("meta"):
        model = nn.Sequential(nn.Linear(3, 3))
    with pytest.raises(TicketError, match="not in the network"):
        load(ticket, model=model)
    with torch.device("meta"):
        other = mlp(9, 5, 3).skeleton()
    with pytest.raises(TicketError, match="on the meta device"):
        load(ticket, model=other)
    assert isinstance(other.fc1, nn.Linear)


def test_links_are_followed_and_other_files_left_alone(ticket: Path, tmp_path: Path) -> None:
    network, real = load(ticket), tmp_path / "real"
    real.write_bytes(b"old")
    (tmp_path / "link").symlink_to(real)
    save(network, tmp_path / "link", architecture=None)
    assert (tmp_path / "link").is_symlink()
    assert inspect(real).architecture is None
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(TicketError, match="is no regular file"):
        save(network, tmp_path / "pipe", architecture=None)
    with pytest.raises(TicketError, match="is no regular file"):
        load(tmp_path / "pipe")
    assert (tmp_path / "pipe").is_fifo()


def test_written_files_have_the_usual_mode(ticket: Path, tmp_path: Path) -> None:
    exports.write_state_dict(ticket, tmp_path / "dense")
    save(load(ticket), tmp_path / "t", architecture=None)
    assert (tmp_path / "dense").stat().st_mode == (tmp_path / "t").stat().st_mode


def test_files_that_are_closed_or_at_their_end(ticket: Path) -> None:
    with open(ticket, "rb") as file:
        file.read()
        with pytest.raises(TicketError, match=r"seek\(0\) first"):
            load(file)
    with pytest.raises(TicketError, match="is closed"):
        load(file)
    with pytest.raises(TypeError, match="a ticket to StringIO"):
        save(load(ticket), io.StringIO(), architecture=None)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="a ticket from bytes"):
        load(ticket.read_bytes())  # type: ignore[arg-type]
