"""What the pictures share: size, colours, markers, text.

Colours are those of Okabe and Ito, which colour-blind people can tell apart; each line has its own marker besides.
Figures are made without pyplot or any global state, and matplotlib is imported when one is drawn.
"""

import io
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from supermask.checks import check_choice, cut
from supermask.reports.lines import Line
from supermask.reports.numbers import Table, to_csv

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Format = Literal["png", "pdf", "svg"]
DPI = 150
WIDTH = 6.0  # inches: on a page 400 px wide, text is still 9 px high
COLOURS = ("#d55e00", "#0072b2", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")  # not as many as the colours, so that 56 lines differ


@dataclass(frozen=True, kw_only=True)
class Look:
    color: str
    marker: str


def new_figure(
    *,
    rows: int = 1,
    columns: int = 1,
    width: float = WIDTH,
    height: float = 4.2,
    sharex: bool = False,
    sharey: bool = False,
) -> tuple["Figure", list["Axes"]]:
    """A figure and its axes, row by row; width and height in inches."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=DPI, layout="constrained")
    every: list[Axes] = list(figure.subplots(rows, columns, sharex=sharex, sharey=sharey, squeeze=False).flat)
    for axes in every:
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
    return figure, every


def looks(lines: Sequence[Line]) -> Iterator[tuple[Line, Look]]:
    for index, drawn in enumerate(lines):
        again, place = divmod(index, len(COLOURS))
        # Colours that come again are lighter, so that no two lines share one.
        colour = lighter(COLOURS[place], 0.45) if again % 2 else COLOURS[place]
        yield drawn, Look(color=colour, marker=MARKERS[index % len(MARKERS)])


def to_png(figure: "Figure") -> bytes:
    """The figure as a PNG file of 256 colours, in a third of the bytes."""
    from PIL import Image

    drawn, packed = io.BytesIO(), io.BytesIO()
    figure.savefig(drawn, format="png", dpi=DPI)
    image = Image.open(drawn).convert("RGB").quantize(256, dither=Image.Dither.NONE)
    image.save(packed, format="png", optimize=True, dpi=(DPI, DPI))
    return packed.getvalue()


def render(figure: "Figure", form: Format) -> bytes:
    """The figure as a file: the same bytes for the same figure, and text in PDF as fonts that journals take.

    Raises:
        ValueError: there is no such format.
    """
    from matplotlib import rc_context

    check_choice("format", form, Format)
    if form == "png":
        return to_png(figure)
    drawn = io.BytesIO()
    with rc_context({"pdf.fonttype": 42, "svg.hashsalt": "supermask"}):
        figure.savefig(drawn, format=form, metadata={"CreationDate": None} if form == "pdf" else {"Date": None})
    return drawn.getvalue()


def picture_files(name: str, figure: "Figure", table: Table, forms: Sequence[Format]) -> dict[str, bytes]:
    """By their names, the files of a figure in these formats, and of the numbers that it shows."""
    return {f"{name}.{form}": render(figure, form) for form in forms} | {f"{name}.csv": to_csv(table)}


def legend(figure: "Figure", handles: Sequence["Artist"], labels: Sequence[str], *, sample: float = 2.0) -> None:
    """Above the axes, where it covers nothing, in as many columns as fit: the figure grows by it. Labels that are wider
    than the figure are cut; `sample` is the length of a line's sample, in letters' sizes."""
    if not handles:
        return
    labels = [cut(label, int(_room(figure)) - 12) for label in labels]
    columns = max(count for count in range(1, len(labels) + 1) if count == 1 or _letters(labels, count) < _room(figure))
    rows = -(-len(labels) // columns)
    columns = -(-len(labels) // rows)
    figure.set_figheight(figure.get_figheight() + 0.18 * (rows - 1))
    look = {"frameon": False, "fontsize": "small", "handlelength": sample}
    figure.legend(handles, labels, loc="outside upper center", ncols=columns, **look)


def _room(figure: "Figure") -> float:
    """Letters of a legend that fit into a row."""
    return 14.4 * figure.get_figwidth()


def _letters(labels: Sequence[str], columns: int) -> int:
    """Width of a legend in letters: each column has its longest label and a sample of its line."""
    rows = -(-len(labels) // columns)
    return sum(max(map(len, labels[start : start + rows])) + 9 for start in range(0, len(labels), rows))


def rate_ticks(rates: Collection[float]) -> tuple[list[float], list[str]]:
    """Ticks and their labels on a logarithmic axis of percentages: of these those that have room."""
    apart = max((max(rates) / min(rates)) ** (1 / 9), 1.01)
    ticks: list[float] = []
    for rate in sorted(rates, reverse=True):
        if not ticks or ticks[-1] / rate > apart:
            ticks.append(rate)
    return ticks, [f"{tick:.3g} %" for tick in ticks]


def lighter(colour: str, share: float) -> str:
    """Mixed with this share of white."""
    parts = [int(colour[start : start + 2], 16) for start in (1, 3, 5)]
    return "#" + "".join(f"{round(part + (255 - part) * share):02x}" for part in parts)


def whole_numbers(axes: "Axes") -> None:
    from matplotlib.ticker import MaxNLocator

    axes.xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10]))


def plain(label: str) -> str:
    """Text that matplotlib shows as it is: a dollar would begin mathematics, and a leading _ hides a line."""
    label = label.replace("$", r"\$")
    return f" {label}" if label.startswith("_") else label
