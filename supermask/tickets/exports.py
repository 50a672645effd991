"""The exported forms of a ticket: its network for torch alone, for ONNX runtimes, or compiled.

    network = dense("ticket.safetensors")              the original network, its weights dense float32
    write_state_dict("ticket.safetensors", "net.safetensors")
    write_program("ticket.safetensors", "net.pt2")     torch.export.load(...)
    write_aoti("ticket.safetensors", "net.pt2")        torch._inductor.aoti_load_package(...)
    write_onnx("ticket.safetensors", "net.onnx")

A writer reads its file back, compares it with the ticket's network, and only then puts it in its place.
"""

import copy
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any, BinaryIO

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from supermask.networks.architecture import input_shape
from supermask.tickets.assemble import masked, read_parts
from supermask.tickets.dense import dense, dense_of
from supermask.tickets.errors import TicketError
from supermask.tickets.file import written
from supermask.tickets.info import TicketInfo
from supermask.tickets.match import same_bits

__all__ = ["dense", "input_shape", "write_aoti", "write_onnx", "write_program", "write_state_dict"]

_ROUNDING = 1e-4  # of the largest output; float32 sums in another order differ by 1e-6, another network by about 1
_ROUNDING_ON_GPU = 5e-3  # the factors of float32 convolutions have TF32's ten bits there
_TRACED = 2  # inputs in the batch that is traced: torch.export takes 1 for a constant
_RUN = 3  # in the batch that is compared: another number, since the batch is dynamic
_MOST_INPUT = 1 << 28  # numbers of one input
_ONE_FILE = 2_000_000_000  # bytes that one ONNX file holds: protocol buffers end at 2 GiB


def write_state_dict(file: str | Path | BinaryIO, path: str | Path, *, model: nn.Module | None = None) -> None:
    """Write the dense weights as a safetensors file, for `load_state_dict` of the original network.

    What is read back has every tensor to the bit, and loads so. Tensors that are one in the network are there under
    each of their names.

    Args:
        file, model: as for `dense`, but the model is copied and not changed.
        path: to write; the file appears whole, or what was there stays.

    Raises:
        TicketError: as `dense`, a network that loads such a file otherwise, or `path` cannot be written.
    """
    path = Path(path)
    network = _network(file, model)[0]
    _check_loads_plain(path, network)
    state: dict[str, Tensor] = {}
    there: set[int] = set()
    for name, tensor in network.state_dict().items():
        memory = tensor.untyped_storage().data_ptr()
        alone = tensor.is_contiguous() and memory not in there
        state[name] = tensor if alone else tensor.clone(memory_format=torch.contiguous_format)
        there.add(memory)

    def check(temporary: Path) -> None:
        with safetensors.safe_open(temporary, "pt") as found:
            if set(found.keys()) != set(state):
                raise TicketError(f"{path}: not written: it reads back with other tensors than the network has")
            for name, tensor in state.items():
                if not same_bits(found.get_tensor(name), tensor.cpu()):
                    raise TicketError(f"{path}: not written: tensor {name!r} does not read back as it was")

    _write(path, lambda temporary: safetensors.torch.save_file(state, temporary, {"format": "pt"}), check)


def write_program(
    file: str | Path | BinaryIO,
    path: str | Path,
    *,
    shape: Sequence[int] | None = None,
    model: nn.Module | None = None,
    packed: bool = False,
) -> None:
    """Write a torch.export program for batches of any size, to be loaded by `torch.export.load`; made for CPU.

    Args:
        file, model: as for `dense`, but the model is copied and not changed.
        path: to write, called .pt2; the file appears whole, or what was there stays.
        shape: of one input, without the batch; None for the architecture's own.
        packed: keep the packed bits in the program, and have it make each layer's weights from them at each call, by
            plain operations of torch. They take two bits an edge: mask and sign, each row of a layer padded to
            multiples of 128. Where weights are real-valued (kaiming_normal, kaiming_uniform) they take one, and the
            weights are drawn by an op of this library's: whoever loads such a program imports supermask first.

    Raises:
        TicketError: as `dense`; a shape that is not known or not the network's; a network that torch.export does not
            take; a program that does not give the network's outputs; a path that cannot be written.
    """
    path = _called_pt2(path)
    network, info = _network(file, model, packed=packed)
    x = _batch(info, shape)
    expected = _run(network, x, info)

    def write(temporary: Path) -> None:
        program = _exported(network, x, info)
        if packed:  # where modules begin and end, and an example input, can be as large as the bits
            _forget(program, "nn_module_stack", "torch_fn")
            program.example_inputs = None
        with temporary.open("wb") as target:
            torch.export.save(program, target)

    def check(temporary: Path) -> None:
        with temporary.open("rb") as source:
            _check_outputs(path, torch.export.load(source).module()(x), expected)

    _write(path, write, check)


def write_aoti(
    file: str | Path | BinaryIO,
    path: str | Path,
    *,
    shape: Sequence[int] | None = None,
    model: nn.Module | None = None,
    device: torch.device | str = "cpu",
) -> None:
    """Write an AOTInductor package of the dense network for batches of any size, compiled for the processor at hand, to
    be loaded by `torch._inductor.aoti_load_package`. Needs a C++ compiler.

    Args:
        file, model: as for `dense`, but the model is copied and not changed.
        path: to write, called .pt2; the file appears whole, or what was there stays.
        shape: of one input, without the batch; None for the architecture's own.
        device: to compile for, and to check on.

    Raises:
        TicketError: as `write_program`, or the network cannot be compiled.
    """
    path = _called_pt2(path)
    network, info = _network(file, model)
    device = torch.device(device)
    network, x = network.to(device), _batch(info, shape).to(device)
    expected = _run(network, x, info)
    inductor: Any = import_module("torch._inductor")

    def write(temporary: Path) -> None:
        with temporary.open("wb") as target, _saying(f"{info.path}: AOTInductor does not compile the network"):
            inductor.aoti_compile_and_package(_exported(network, x, info), package_path=target)

    def check(temporary: Path) -> None:
        index = -1 if device.index is None else device.index
        with temporary.open("rb") as source:
            found = inductor.aoti_load_package(source, device_index=index)(x)
        _check_outputs(path, found, expected)

    _write(path, write, check)


def write_onnx(
    file: str | Path | BinaryIO,
    path: str | Path,
    *,
    shape: Sequence[int] | None = None,
    model: nn.Module | None = None,
) -> None:
    """Write an ONNX model of the dense network for batches of any size: input "input", output "output".

    It is one file, unless the network takes more than 2 GB: then its weights are beside it, in a file with .data after
    its name. It is checked in ONNX Runtime where that is installed, and else in onnx's own, slow evaluator.

    Args:
        file, model: as for `dense`, but the model is copied and not changed.
        path: to write; the file appears whole, or what was there stays.
        shape: of one input, without the batch; None for the architecture's own.

    Raises:
        TicketError: as `write_program`; the packages onnx and onnxscript are not installed; a network of more than 2 GB
            and there is a .data file already.
    """
    path = Path(path)
    for package in ("onnx", "onnxscript"):
        if _optional(package) is None:
            raise TicketError(f'{path}: writing ONNX needs {package}: pip install "supermask[onnx]"')
    network, info = _network(file, model)
    x = _batch(info, shape)
    expected = _run(network, x, info)
    data = _weights_beside(path, network)

    def write(temporary: Path) -> None:
        program = _exported(network, x, info)
        with _saying(f"{info.path}: ONNX does not express the network"):
            made: Any = torch.onnx.export(
                program,
                dynamo=True,
                dynamic_shapes=({0: "batch"},),
                input_names=["input"],
                output_names=["output"],
                verbose=False,
            )
        ir: Any = import_module("onnx_ir")
        ir.save(made.model, temporary, format="protobuf", external_data=None if data is None else data.name)

    def check(temporary: Path) -> None:
        _check_outputs(path, _onnx_outputs(temporary, x), expected)

    try:
        _write(path, write, check)
    except BaseException:
        if data is not None:
            data.unlink(missing_ok=True)
        raise


def _weights_beside(path: Path, network: nn.Module) -> Path | None:
    """Where the weights of an ONNX model go that one file does not hold."""
    if sum(tensor.nbytes for tensor in network.state_dict().values()) <= _ONE_FILE:
        return None
    data = path.with_name(f"{path.name}.data")
    if data.exists():
        raise TicketError(f"{data}: is there already, and the weights are to go there: remove it, or write elsewhere")
    return data


def _onnx_outputs(path: Path, x: Tensor) -> list[Tensor]:
    runtime = _optional("onnxruntime")
    if runtime is not None:
        session = runtime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    else:
        session = import_module("onnx.reference").ReferenceEvaluator(str(path))
    return [torch.from_numpy(output) for output in session.run(None, {"input": x.numpy()})]


def _network(
    file: str | Path | BinaryIO, model: nn.Module | None, *, packed: bool = False
) -> tuple[nn.Module, TicketInfo]:
    """The network to export, of a copy of the caller's model."""
    model = copy.deepcopy(model)
    if not packed:
        return dense_of(file, model)
    parts = read_parts(file, model=model, weights="materialised", device="cpu")
    return masked(parts), parts.info


def _batch(info: TicketInfo, shape: Sequence[int] | None) -> Tensor:
    """Random inputs [_RUN, *shape]."""
    if shape is None:
        with _saying(f"{info.path}: the inputs of {info.architecture} are not known: give shape=, without the batch"):
            shape = None if info.architecture is None else input_shape(info.architecture)
        if shape is None:
            named = info.architecture or "a network without a name"
            raise TicketError(f"{info.path}: what inputs {named} takes is not known: give shape=, without the batch")
    if any(type(size) is not int or size < 1 for size in shape):
        raise TicketError(f"shape={tuple(shape)}: expected positive integers, the shape of one input without the batch")
    if math.prod(shape) > _MOST_INPUT:
        raise TicketError(f"shape={tuple(shape)}: an input of more than {_MOST_INPUT:,} numbers: give a smaller shape=")
    return torch.randn(_RUN, *shape, generator=torch.Generator().manual_seed(0))


def _run(network: nn.Module, x: Tensor, info: TicketInfo) -> Any:
    shape = tuple(x.shape[1:])
    with torch.no_grad(), _saying(f"{info.path}: the network does not take float32 inputs of shape={shape}"):
        return network(x)


def _exported(network: nn.Module, x: Tensor, info: TicketInfo) -> torch.export.ExportedProgram:
    """The program of a network with one input, dynamic in its batch."""
    with torch.no_grad(), _saying(f"{info.path}: torch.export does not take the network"):
        program = torch.export.export(network, (x[:_TRACED],), dynamic_shapes=({0: torch.export.Dim("batch")},))
    _forget(program, "stack_trace")  # it names the files of this machine
    return program


def _forget(program: torch.export.ExportedProgram, *keys: str) -> None:
    """Drop what the nodes of a program say of where they come from."""
    for module in program.graph_module.modules():
        for node in module.graph.nodes if isinstance(module, torch.fx.GraphModule) else ():
            for key in keys:
                node.meta.pop(key, None)


def _write(path: Path, write: Callable[[Path], None], check: Callable[[Path], None]) -> None:
    """`written`, with whatever the libraries that write and read the file raise as a TicketError."""

    def checked(temporary: Path) -> None:
        with torch.no_grad(), _saying(f"{path}: not written: it cannot be read back"):
            check(temporary)

    def filled(temporary: Path) -> None:
        with _saying(f"{path}: cannot be written"):
            write(temporary)

    written(path, filled, checked)


def _check_outputs(path: Path, found: Any, expected: Any) -> None:
    """Nothing, if the outputs are the network's up to float32 rounding."""
    pairs = [list(_tensors_in(outputs)) for outputs in (found, expected)]
    if [output.shape for output in pairs[0]] != [output.shape for output in pairs[1]]:
        shapes = [[tuple(output.shape) for output in outputs] for outputs in pairs]
        raise TicketError(
            f"{path}: not written: its outputs have shapes {shapes[0]}, the ticket's network's {shapes[1]}"
        )
    for one, two in zip(*pairs, strict=True):
        most = float(two[two.isfinite()].abs().max()) if two.isfinite().any() else 0.0
        rounding = _ROUNDING if two.device.type == "cpu" else _ROUNDING_ON_GPU
        if not torch.allclose(one, two, rtol=0, atol=rounding * most, equal_nan=True):
            raise TicketError(
                f"{path}: not written: its outputs differ from the ticket's network's by up to "
                f"{float((one - two).abs().max()):.3g}, of outputs up to {most:.3g}"
            )


def _tensors_in(outputs: Any) -> Iterator[Tensor]:
    """The tensors of a network's outputs: one, or lists, tuples and mappings of them in each other."""
    if isinstance(outputs, Tensor):
        yield outputs
    elif isinstance(outputs, Mapping | list | tuple):
        for inner in outputs.values() if isinstance(outputs, Mapping) else outputs:
            yield from _tensors_in(inner)


def _check_loads_plain(path: Path, network: nn.Module) -> None:
    """Raise TicketError if `network` is another after it loaded its own state dict without the versions of modules,
    which a safetensors file does not hold."""
    state, other, wrong = network.state_dict(), copy.deepcopy(network), ""
    try:
        other.load_state_dict(dict(state))
        differ = [name for name, value in other.state_dict().items() if not same_bits(value, state[name])]
        wrong = f"{differ[0]} is another then" if differ else ""
    except (RuntimeError, ValueError) as error:
        wrong = str(error)
    if wrong:
        raise TicketError(
            f"{path}: not written: {type(network).__name__} loads a state dict by the versions of its modules, which a "
            f"safetensors file does not hold ({wrong}): torch.save the state_dict() of supermask.exports.dense(...)"
        )


def _called_pt2(path: str | Path) -> Path:
    path = Path(path)
    if path.suffix != ".pt2":
        raise TicketError(f"{path}: torch loads programs from files called .pt2 only: name it {path.stem}.pt2")
    return path


def _optional(package: str) -> Any:
    """A package, or None where it is not installed."""
    try:
        return import_module(package)
    except ImportError:
        return None


@contextmanager
def _saying(what: str) -> Iterator[None]:
    """Errors inside are a TicketError that begins with `what`: torch and ONNX raise whatever they run into."""
    try:
        yield
    except (OSError, TicketError):
        raise
    except Exception as error:
        said = f"{type(error).__name__}: {error}"
        raise TicketError(f"{what}: {said[:1000]}") from error
