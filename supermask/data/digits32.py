"""scikit-learn's digits drawn at 32x32 in colour, as many of them as a schedule takes, which need no download.

An image of a pass is a function of the seed, the pass and its place in it: of 24-bit integers that the counter-based
generator draws for that place (kernels/base/philox.py; its layer is the pass, its row the place), equal to the bit on
every device. So are the place, size, turn and colours made of them, by sums, products and quotients, each rounded
to float32. Pixels are read between those of the digit by torch's bilinear sampling, so that one image has the same bits
in every batch on one device, and on two the same values to float32 rounding.

Batches are made beside the training step and not in it, many at a time where launching costs more than computing: a
step captured in a CUDA graph is that of any other data, and nothing here waits for the device.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor

from supermask.data.base import About, Batch, Loaded, Part, in_order, steps_of
from supermask.data.digits import TRAINED, split_digits
from supermask.data.held_out import Evaluated, check_held_out, split
from supermask.kernels.base import philox
from supermask.later import LATER, Grown

SIDE = 32
MOST_IMAGES = 10_000_000
DATA = 7  # purpose of the draws, one of the generator's; in generation 1 the noise
NOISE = 1 << 16  # noise fields that begin at different places of one row of draws
CALIBRATION = 10_000
AT_ONCE = 1000

# Lowest and highest value of each draw, in order, after that of the digit. Lengths are in halves of the image's side, x
# to the right, y down; a turn is the tangent of half its angle (0.15: 17 degrees); at zoom 1.25 an image shows 1.25
# times as much; colours are in units of the contrast that digits for testing have.
DRAWN = {
    "noise field": (0, NOISE),
    "light or dark": (-1, 1),
    "x": (-0.25, 0.25),
    "y": (-0.25, 0.25),
    "turn": (-0.15, 0.15),
    "zoom": (0.8, 1.25),
    "shear": (-0.3, 0.3),
    "ground, red": (-0.5, 0.5),
    "ground, green": (-0.5, 0.5),
    "ground, blue": (-0.5, 0.5),
    "contrast, red": (0.4, 1.6),
    "contrast, green": (0.4, 1.6),
    "contrast, blue": (0.4, 1.6),
    "noise": (0, 0.4),
}


@dataclass(frozen=True, kw_only=True, repr=False)
class Digits32(Grown):
    """scikit-learn's digits at 32x32 in three channels: 797 for testing, the same in every pass, and 1,000 others that
    each pass draws again, moved, turned, sheared, scaled, coloured and noisy.

    Attributes:
        batch: training batch size over all processes; an incomplete last batch is dropped.
        images_per_epoch: training images drawn in a pass.
        hold_out: of so many of the 1,000 no image is drawn, the same ones for every seed; they are evaluated on as the
            test digits are, as they stand.
        evaluate: what accuracies are of: the `test` digits, or the `held_out` ones.
    """

    batch: int = 128
    images_per_epoch: int = 50_000
    hold_out: int = field(default=0, metadata=LATER)
    evaluate: Evaluated = field(default="test", metadata=LATER)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.images_per_epoch <= MOST_IMAGES:
            raise ValueError(
                f"images_per_epoch={self.images_per_epoch}: expected 1 to {MOST_IMAGES:,}; their draws are made at once"
            )
        check_held_out(self.hold_out, TRAINED, self.evaluate)

    def about(self) -> About:
        return About(classes=10, train=self.images_per_epoch, shape=(3, SIDE, SIDE))

    def open(self, *, seed: int, device: torch.device) -> Loaded:
        batch, count = self.batch, self.images_per_epoch
        steps = steps_of(count, batch)
        train_pixels, test_pixels, train_labels, test_labels = split_digits()
        kept, held = split(TRAINED, self.hold_out)
        drawing = Drawing(train_pixels[kept], train_labels[kept], seed=seed, device=device)
        x_test, y_test = plain(ink(test_pixels)).to(device), test_labels.to(device)
        x_held, y_held = plain(ink(train_pixels[held])).to(device), train_labels[held].to(device)
        most = min(CALIBRATION, count)
        full = most - most % AT_ONCE or most

        def train(part: Part) -> Iterator[Batch]:
            part.check(steps=steps, batch=batch)
            return drawing.batches(part, batch=batch, steps=steps, count=count)

        def calibrate(part: Part) -> Iterator[Batch]:
            # Plain digits have other statistics than any batch that the network was trained on.
            part.check(steps=steps, batch=min(AT_ONCE, full))
            first, whole = Part(rank=part.rank, ranks=part.ranks), min(AT_ONCE, full)
            return drawing.batches(first, batch=whole, steps=full // whole, count=count)

        return Loaded(
            classes=10,
            steps=steps,
            train=train,
            test=lambda part: in_order(x_test, y_test, part, AT_ONCE),
            calibrate=calibrate,
            held_out=(lambda part: in_order(x_held, y_held, part, AT_ONCE)) if self.hold_out else None,
        ).evaluated_on(self.evaluate)


class Drawing:
    """Draws images of some digits.

    Args:
        pixels: of the digits, 0 to 16, [digits, 64].
        labels: int64 [digits].
        seed: of all draws.
        device: where images are made.
    """

    def __init__(self, pixels: Tensor, labels: Tensor, *, seed: int, device: torch.device) -> None:
        self.seed, self.device = seed, device
        self.ink, self.labels = ink(pixels).to(device), labels.to(device)
        bounds = torch.tensor([(0, len(labels)), *DRAWN.values()], dtype=torch.float32).T.contiguous()
        self.low, self.width = bounds[0].to(device), (bounds[1] - bounds[0]).to(device)
        across = torch.arange(SIDE, dtype=torch.float32) * (2 / SIDE) + (1 / SIDE - 1)  # middles of the pixels; exact
        self.across = across.to(device)
        size = 3 * SIDE * SIDE
        drawn = philox.uniform(
            seed, 0, 1, NOISE + size, low=-1.0, high=1.0, purpose=DATA, generation=1, device=device
        )  # fmt: skip
        self.noise = drawn.as_strided((NOISE, size), (1, 1))

    def draws(self, epoch: int, count: int) -> Tensor:
        """What the images of a pass are made of: float32 [count, draws], multiples of 2^-24 from 0 to below 1."""
        columns = len(self.low)
        return philox.uniform(self.seed, epoch, count, columns, low=0.0, high=1.0, purpose=DATA, device=self.device)

    def __call__(self, draws: Tensor) -> Batch:
        """Images, float32 [batch, 3, 32, 32], channels-last, and labels; one for each row of `draws`."""
        values = self.low + self.width * draws
        source, field = values[:, :2].to(torch.int64).unbind(1)
        light, x, y, turn, zoom, shear = values[:, 2:8].unbind(1)
        places = self.places(torch.stack([x, y], 1), turn, zoom, shear)
        drawn = F.grid_sample(self.ink[source], places, mode="bilinear", padding_mode="zeros", align_corners=False)
        ground, contrast = values[:, 8:11, None, None], values[:, 11:14, None, None]
        contrast = torch.copysign(contrast, light[:, None, None, None])
        # Products and sums one by one: a fused multiply-add would round otherwise at the end of a row of vectors.
        noise = (self.noise[field] * values[:, 14:]).view(-1, 3, SIDE, SIDE)
        images = (drawn * contrast).add_(ground).add_(noise)
        return images.contiguous(memory_format=torch.channels_last), self.labels[source]

    def places(self, moved: Tensor, turn: Tensor, zoom: Tensor, shear: Tensor) -> Tensor:
        """Where in its digit each pixel of an image is read: float32 [batch, 32, 32, 2], x and y from -1 to 1."""
        square = turn * turn
        cosine, sine = (1 - square) / (1 + square), (turn + turn) / (1 + square)
        right = torch.stack([cosine, sine], 1) * zoom[:, None]
        down = torch.stack([cosine * shear - sine, sine * shear + cosine], 1) * zoom[:, None]
        columns = self.across[:, None] * right[:, None, :]
        rows = self.across[:, None] * down[:, None, :] + moved[:, None, :]
        return columns[:, None, :, :] + rows[:, :, None, :]

    def batches(self, part: Part, *, batch: int, steps: int, count: int) -> Iterator[Batch]:
        """The part's share of the first `steps` batches of a pass of `count` images."""
        draws = self.draws(part.epoch, count)
        own = part.share(list(range(batch)))
        # On a GPU a launch takes longer than its work on one batch; on CPU one batch stays in cache.
        together = 1 if self.device.type == "cpu" else max(1, 2048 // batch)
        for first in range(part.start, steps, together):
            of = draws[first * batch : min(first + together, steps) * batch].view(-1, batch, draws.shape[1])
            images, labels = self(of[:, own[0] : own[-1] + 1].flatten(0, 1))
            yield from zip(images.split(len(own)), labels.split(len(own)), strict=True)


def ink(pixels: Tensor) -> Tensor:
    """Digits of 8x8 pixels, 0 to 16, as float32 [digits, 1, 32, 32] from 0 to 1: a margin of one pixel, and cubic
    interpolation. Made on the CPU, for every device."""
    small = F.pad(pixels.to(torch.float32).view(-1, 1, 8, 8) * (1 / 16), (1, 1, 1, 1))
    return F.interpolate(small, size=(SIDE, SIDE), mode="bicubic", align_corners=False).clamp_(0, 1)


def plain(drawn: Tensor) -> Tensor:
    """Digits as they are: the contrast is 1 and the ground 0 in all channels."""
    return drawn.expand(-1, 3, -1, -1).contiguous(memory_format=torch.channels_last)
