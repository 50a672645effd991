"""The check of families finds what it is there to find."""

import pytest
import torch
from torch import Tensor, nn

from supermask import Architecture
from tests.families.by_name import Named, Refused, comes_back, wrongly_refused
from tests.families.cases import Case, cases
from tests.families.check import checked, table


def test_networks_of_torchvision_come_back() -> None:
    some = [case for case in cases("torchvision") if case.name.endswith(("shufflenet_v2_x0_5", "mnasnet0_5"))]
    rows = [checked(case) for case in some]
    assert [(row.name, row.wrong) for row in rows] == [(case.name, "") for case in some]
    assert all(row.share > 0.9 for row in rows)
    assert table(rows).count("\n") == 4


def test_every_family_of_torchvision_is_there() -> None:
    """A family is a file of torchvision.models."""
    from torchvision import models

    names = models.list_models(module=models)
    of = {name: models.get_model_builder(name).__module__ for name in names}
    there = {of[case.name.removeprefix("torchvision/")] for case in cases("torchvision")}
    assert there == set(of.values())


@pytest.mark.parametrize("wrong", ["raises", "other"])
def test_what_goes_wrong_is_a_row(wrong: str) -> None:
    def called(network: nn.Module, x: Tensor) -> Tensor:
        found = network(x)
        if wrong == "raises" and not network.training:
            raise RuntimeError("said by the network")
        return found + torch.rand(()) if wrong == "other" else found  # type: ignore[no-any-return]

    row = checked(Case(name="own", build=lambda: nn.Sequential(nn.Linear(4, 4)), shape=(2, 4), called=called))
    assert row.wrong == {"raises": "RuntimeError: said by the network"}.get(
        wrong, "other logits than the searched network's"
    )
    assert row.wrong in table([row])


def test_the_check_of_names_finds_what_is_wrong() -> None:
    small = Architecture(name="torchvision/shufflenet_v2_x0_5", arguments={"num_classes": 3})
    inputs = torch.zeros(2, 3, 64, 64)
    assert comes_back(Named(architecture=small, inputs=inputs, shape=(3, 224, 224))) == ""
    assert "has the shape (3, 224, 224)" in comes_back(Named(architecture=small, inputs=inputs, shape=(3, 64, 64)))
    mlp = Architecture(name="mlp", arguments={"sizes": [4, 3]})
    assert wrongly_refused(Refused(architecture=mlp, says="sizes")) == "it is built"
    missing = Architecture(name="mlp")
    assert wrongly_refused(Refused(architecture=missing, says="required positional argument: 'sizes'")) == ""
    assert wrongly_refused(Refused(architecture=missing, says="norm")).startswith("it says mlp() cannot be built")
