"""Settings of later releases: unsaid where they have their default, so that runs of before are the same runs."""

import json
from dataclasses import asdict, dataclass, field, replace

import torch

from supermask.data.image_folder import ImageFolder
from supermask.data.image_sets import CIFAR10, CIFAR100, SVHN
from supermask.later import LATER, Grown, settings
from supermask.training.training import Training
from tests.supermask.runs.small_runs import BASE


@dataclass(frozen=True, kw_only=True, repr=False)
class Setting(Grown):
    """Two fields of the first release, one hidden, and one of a later one."""

    rate: float = 0.5
    workers: int = field(default=8, repr=False)
    tail: int = field(default=0, metadata=LATER)


def test_a_later_field_is_said_where_it_is_set() -> None:
    assert repr(Setting()) == "Setting(rate=0.5)"
    assert repr(Setting(tail=3)) == "Setting(rate=0.5, tail=3)"
    assert settings(Setting()) == {"rate": 0.5, "workers": 8}
    assert settings(Setting(tail=3)) == asdict(Setting(tail=3))


def test_the_text_of_configurations_is_that_of_the_first_release() -> None:
    small = "batch=128, augment='crop_flip')"
    assert repr(CIFAR10()) == f"CIFAR10(root=PosixPath('data/cifar10'), {small}"
    assert repr(CIFAR100()) == f"CIFAR100(root=PosixPath('data/cifar100'), {small}"
    assert repr(SVHN()) == f"SVHN(root=PosixPath('data/svhn'), {small}"
    folder = "root=PosixPath('data/imagenet'), batch=512, size=224, resize=256, calibration=10000"
    assert repr(ImageFolder()) == f"ImageFolder({folder})"
    assert repr(Training()) == (
        "Training(epochs=100, lr=0.1, momentum=0.9, weight_decay=0.0001, warmup=0, label_smoothing=0.0, "
        "precision='float32', compile=False)"
    )
    assert list(settings(CIFAR10())) == ["root", "batch", "augment", "download"]


def test_a_run_says_its_tail_only_where_it_has_one() -> None:
    architecture = BASE.architecture(4)
    said = BASE.to_json(architecture, torch.device("cpu"), 1)
    assert not {"tail", "tail_lr"} & set(said["training"])
    tailed = replace(BASE, training=replace(BASE.training, tail=1)).to_json(architecture, torch.device("cpu"), 1)
    assert tailed["training"] == {**said["training"], "tail": 1}
    assert json.dumps({**tailed, "training": said["training"]}) == json.dumps(said)
