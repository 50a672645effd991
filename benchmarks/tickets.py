"""How small tickets are, and how long they take to save and to load: ResNet-18, ResNet-50 and an MLP at four rates.

    python -m benchmarks.tickets --threads 2 --folder runs/tickets --json tickets.json

The masks are those of real searches, soft iEP on scikit-learn's digits: ResNet-18 for 32x32 images on the 8x8 images as
they are, torchvision's ResNet-50 on them enlarged to 32x32 in three channels, and the MLP of the digits recipes. A
search that is in the folder already is not run again.

Sizes of masks alone: one bit an edge; `zstd -19` of the raw masks, layer by layer (needs zstandard); the entropy
of independent bits at each layer's density; and ans. Files hold batch-norm statistics and the header besides.
"""

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

import supermask
from benchmarks._report import Comparison, Options, Report, command
from benchmarks._timing import interleaved
from supermask.edges.in_model import all_edges
from supermask.runs.read import read_run
from supermask.tickets.coding.planes import encode_raw
from supermask.tickets.file import Reader, reading
from supermask.tickets.info import TicketInfo

RATES = (0.5, 0.3, 0.1, 0.035)
ENCODINGS = ("raw", "ans")


@dataclass(frozen=True, kw_only=True)
class EnlargedDigits:
    """scikit-learn's digits as images [channels, size, size], pixels repeated; as split by supermask.Digits."""

    size: int
    channels: int
    batch: int

    def open(self, *, seed: int, device: torch.device) -> supermask.Loaded:
        small = supermask.Digits(batch=self.batch, layout="image").open(seed=seed, device=device)
        parts = []
        for batches in (small.calibrate, small.test):
            images, labels = (torch.cat(tensors) for tensors in zip(*batches(supermask.Part()), strict=True))
            times = self.size // 8
            images = images.repeat_interleave(times, 2).repeat_interleave(times, 3)
            parts += [images.repeat(1, self.channels, 1, 1), labels]
        return supermask.in_memory(*parts, batch=self.batch, seed=seed)


@dataclass(frozen=True, kw_only=True)
class Searched:
    """A network to search, and how.

    Attributes:
        epochs: of each cycle.
    """

    name: str
    architecture: supermask.Architecture
    data: supermask.Data
    epochs: int
    lr: float


NETWORKS = {
    "ResNet-18": Searched(
        name="resnet18",
        architecture=supermask.Architecture(name="resnet18", arguments={"channels": 1, "num_classes": 10}),
        data=EnlargedDigits(size=8, channels=1, batch=64),
        epochs=8,
        lr=0.1,
    ),
    "ResNet-50": Searched(
        name="resnet50",
        architecture=supermask.Architecture(name="torchvision/resnet50", arguments={"num_classes": 10}),
        data=EnlargedDigits(size=32, channels=3, batch=50),
        epochs=5,
        lr=0.1,
    ),
    "MLP": Searched(
        name="mlp",
        architecture=supermask.Architecture(name="mlp", arguments={"sizes": [64, 256, 256, 10]}),
        data=supermask.Digits(),
        epochs=10,
        lr=0.3,
    ),
}


def ticket_name(rate: float) -> str:
    return f"remaining-{rate}.safetensors"


def search(searched: Searched, folder: Path) -> Path:
    """The run folder of a search, with a ticket of every rate."""
    path = folder / searched.name
    if not (path / ticket_name(RATES[-1])).exists():
        stages: list[Any] = []
        for rate, cycle in zip(RATES, supermask.soft_iep(RATES), strict=True):
            stages += [supermask.Search(cycle=cycle), supermask.Evaluate(), supermask.Export(file=ticket_name(rate))]
        supermask.Recipe(
            name=searched.name,
            data=searched.data,
            network=lambda _: searched.architecture,
            training=supermask.Training(epochs=searched.epochs, lr=searched.lr),
            stages=tuple(stages),
            run=supermask.RunOptions(folder=path, resume=path.exists()),
        ).execute()
    return path


def zstd(masks: Sequence[bytes]) -> int | None:
    """Bytes of raw masks after zstd at level 19, each layer's alone; None where zstandard is not installed."""
    try:
        import zstandard
    except ImportError:
        return None
    return sum(len(zstandard.ZstdCompressor(level=19).compress(mask)) for mask in masks)


def raw_masks(reader: Reader) -> list[bytes]:
    info = reader.info
    return [encode_raw(reader.planes(layer)["mask"], layer.grid(info.seed), None) for layer in info.layers]


def sizes(raw: TicketInfo, ans: TicketInfo, masks: Sequence[bytes]) -> dict[str, Any]:
    """Bytes of a network in each form."""
    return {
        "edges": ans.edges,
        "kept": ans.kept,
        "dense_float32": ans.dense_bytes,
        "one_bit_an_edge": -(-ans.edges // 8),
        "masks_raw": raw.plane_bytes,
        "masks_zstd_19": zstd(masks),
        "masks_entropy": ans.entropy / 8,
        "masks_ans": ans.plane_bytes,
        "file_raw": raw.file_bytes,
        "file_ans": ans.file_bytes,
    }


def measure(case: str, ticket: Path, options: Options) -> tuple[dict[str, Any], list[Comparison]]:
    """Sizes and times of one ticket's network in both encodings, checked to be the same network first."""
    architecture = supermask.inspect(ticket).architecture
    network = supermask.load(ticket)
    data = {}
    infos = {}
    for encoding in ENCODINGS:
        buffer = io.BytesIO()
        infos[encoding] = supermask.save(network, buffer, architecture=architecture, encoding=encoding)  # type: ignore[arg-type]
        data[encoding] = buffer.getvalue()
        for name, edges in all_edges(supermask.load(io.BytesIO(data[encoding]))).items():
            if not torch.equal(edges.mask(), all_edges(network)[name].mask()):
                raise RuntimeError(f"{case}: layer {name} does not come back from {encoding}")
    stored = {}
    for change in ({"precision": "bfloat16"}, {"fold": True}, {"precision": "bfloat16", "fold": True}):
        info = supermask.save(network, io.BytesIO(), architecture=architecture, **change)  # type: ignore[arg-type]
        stored[" ".join(change)] = info.file_bytes

    def saving(encoding: str) -> Callable[[], object]:
        return lambda: supermask.save(network, io.BytesIO(), architecture=architecture, encoding=encoding)  # type: ignore[arg-type]

    def loading(encoding: str) -> Callable[[], object]:
        return lambda: supermask.load(io.BytesIO(data[encoding]))

    comparisons = [
        Comparison(
            case=f"{case}, {what}",
            base="raw",
            seconds=interleaved({e: call(e) for e in ENCODINGS}, rounds=options.rounds_of(rounds), warmup=1),
            checked="every mask comes back from both encodings, to the bit",
        )
        for what, call, rounds in (("save", saving, 3), ("load", loading, 7))
    ]
    with reading(ticket) as reader:
        masks = raw_masks(reader)
    return sizes(infos["raw"], infos["ans"], masks) | {"file_ans_with": stored}, comparisons


@dataclass(frozen=True, kw_only=True)
class TicketOptions(Options):
    folder: Path = Path("runs/tickets")
    """where the searches are"""
    networks: tuple[str, ...] = tuple(NETWORKS)
    """which"""


def row(case: str, found: dict[str, Any], save: Comparison, load: Comparison) -> str:
    """Of the table in Markdown; sizes in kB of 1,000 bytes."""
    kb = [
        found[name]
        for name in (
            "dense_float32", "one_bit_an_edge", "masks_zstd_19", "masks_entropy", "masks_ans", "file_raw", "file_ans"
        )
    ]  # fmt: skip
    cells = [case, f"{found['dying']:.2f}", f"{found['accuracy']:.1%}"]
    cells += ["" if size is None else f"{size / 1000:,.1f}" for size in kb]
    cells += [f"{8 * found['masks_ans'] / found['edges']:.3f}"]
    cells += [f"{one.seconds[e].median:.2f}" for one in (save, load) for e in ENCODINGS]
    return f"| {' | '.join(cells)} |"


HEADINGS = (
    "network, remaining", "dying", "accuracy", "dense float32", "one bit an edge", "zstd -19", "entropy", "ans",
    "file, raw", "file, ans", "bits an edge", "save raw", "save ans", "load raw", "load ans",
)  # fmt: skip


def run(options: TicketOptions) -> Report:
    """On CPU, whatever the device asked for."""
    facts: dict[str, Any] = {}
    comparisons: list[Comparison] = []
    rows = [f"| {' | '.join(HEADINGS)} |", "|---" * len(HEADINGS) + "|"]
    for name in options.networks:
        path = search(NETWORKS[name], options.folder)
        cycles = read_run(path).cycles
        for rate, cycle in zip(RATES, cycles, strict=True):
            case = f"{name}, {rate:.1%}"
            found, timed = measure(case, path / ticket_name(rate), options)
            found |= {"dying": cycle.dying, "accuracy": cycle.recalibrated}
            facts[case] = found
            comparisons += timed
            rows.append(row(case, found, *timed))
    title = "Tickets of searches on digits: sizes in kB, times in s"
    return Report(title=title, comparisons=tuple(comparisons), notes=tuple(rows), facts=facts)


if __name__ == "__main__":
    command(run)
