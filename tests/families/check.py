"""One network there and back, and what it looks like as a row of a table."""

import io
import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from supermask import SearchWarning, convert, load, save, summary
from supermask.training.score_sgd import ScoreSGD
from tests.families.cases import Case


@dataclass(frozen=True, kw_only=True)
class Row:
    """What became of a network.

    Attributes:
        share: masked edges over parameters.
        left: parameters that are not masked, by reason.
        warned: what the conversion and the first step said.
        wrong: what went wrong, if anything.
    """

    name: str
    layers: int = 0
    share: float = 0.0
    left: tuple[tuple[str, int], ...] = ()
    warned: tuple[str, ...] = ()
    wrong: str = ""


def checked(case: Case) -> Row:
    """Convert, step, save, load: the logits of the loaded network are those of the searched one, to the bit."""
    torch.manual_seed(0)
    try:
        dense = case.build()
        parameters = sum(parameter.numel() for parameter in dense.parameters())
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("ignore")
            warnings.simplefilter("always", SearchWarning)
            model = convert(dense, seed=1, remaining=0.5)
            _step(case, model)
        model.eval()
        file = io.BytesIO()
        save(model, file, architecture=None, encoding="raw")
        file.seek(0)
        again = load(file, model=case.build(), weights="cached")
        with torch.no_grad():
            same = torch.equal(case.called(model, case.input()), case.called(again, case.input()))
    except Exception as error:  # whatever a network of other hands runs into is what the table is to say
        return Row(name=case.name, wrong=f"{type(error).__name__}: {error}")
    found, reasons = summary(model), Counter[str]()
    for left in found.left:
        reasons[left.reason] += torch.Size(left.shape).numel()
    return Row(
        name=case.name,
        layers=len(found.layers),
        share=found.edges / parameters,
        left=tuple(reasons.most_common()),
        warned=tuple(str(one.message) for one in told if issubclass(one.category, SearchWarning)),
        wrong="" if same else "other logits than the searched network's",
    )


def _step(case: Case, model: torch.nn.Module) -> None:
    optimiser = ScoreSGD(model, lr=0.1)
    with optimiser.searching():
        case.called(model.train(), case.input()).square().mean().backward()
    optimiser.step()


def table(rows: Sequence[Row]) -> str:
    """Markdown."""
    lines = ["| network | masked layers | of the parameters | left, and why | said |", "|---|---|---|---|---|"]
    for row in rows:
        left = "; ".join(f"{count:,}: {reason}" for reason, count in row.left)
        said = "; ".join(one if len(one) < 90 else f"{one[:87]}..." for one in row.warned)
        cells = row.name, f"{row.layers}", f"{row.share:.1%}", left, row.wrong or said
        lines.append("| " + " | ".join(cell.replace("|", r"\|") for cell in cells) + " |")
    return "\n".join(lines) + "\n"
