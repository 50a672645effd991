"""Accuracy and recalibration."""

import pytest
import torch
from torch import nn

from supermask.edges.in_model import searched_edges
from supermask.networks.convert import convert
from supermask.training.evaluate import accuracy, recalibrate, right_of
from supermask.training.measures import dying, track


def test_accuracy_counts_over_uneven_batches_and_restores_the_mode() -> None:
    model = nn.Sequential(nn.Identity(), nn.Dropout(0.9))
    model[1].eval()
    model.train()
    model[1].eval()
    logits = torch.eye(4)
    batches = [(logits[:3], torch.tensor([0, 1, 0])), (logits[3:], torch.tensor([3]))]
    assert accuracy(model, batches) == 0.75
    assert model.training
    assert not model[1].training


def test_accuracy_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="no batch"):
        accuracy(nn.Identity(), [])


def test_recalibration_averages_batch_statistics_of_the_present_mask() -> None:
    model = convert(nn.Sequential(nn.Linear(20, 12), nn.Dropout(0.5), nn.BatchNorm1d(12)), 0, remaining=0.4)
    track(model)
    norm = model[2]
    batches = [(torch.randn(16, 20), torch.zeros(16)) for _ in range(3)]
    model(batches[0][0] * 100)
    with torch.no_grad():
        searched_edges(model)["0"].scores.neg_().add_(0.01)
    selected = dying(model).ever
    recalibrate(model, batches)
    with torch.no_grad():
        weight = model[0].weight
    outputs = [x @ weight.T for x, _ in batches]
    torch.testing.assert_close(norm.running_mean, torch.stack([o.mean(0) for o in outputs]).mean(0))
    torch.testing.assert_close(norm.running_var, torch.stack([o.var(0) for o in outputs]).mean(0))
    assert norm.momentum == 0.1
    assert model.training
    assert dying(model).ever == selected


def test_recalibration_that_fails_leaves_the_momentum() -> None:
    model = nn.Sequential(nn.BatchNorm1d(3))
    with pytest.raises(ValueError, match="expected"):
        recalibrate(model, [(torch.zeros(2, 3, 4, 5), torch.zeros(2))])
    assert model[0].momentum == 0.1


def test_recalibration_from_nothing_is_refused_and_changes_nothing() -> None:
    norm = nn.BatchNorm1d(3)
    norm.running_mean.fill_(2.0)
    with pytest.raises(ValueError, match="no batch"):
        recalibrate(norm, [])
    assert norm.running_mean.tolist() == [2.0] * 3
    recalibrate(nn.LayerNorm(3), [])


def test_a_share_may_be_empty() -> None:
    """One process's part of a short last batch, or of the whole test set."""
    logits = torch.eye(3)
    batches = [(logits, torch.tensor([0, 1, 1])), (logits[:0], torch.zeros(0, dtype=torch.int64))]
    assert right_of(nn.BatchNorm1d(3), batches).tolist() == [2, 3]
    assert right_of(nn.Identity(), []).tolist() == [0, 0]


def test_a_network_that_is_not_searched_is_evaluated_too() -> None:
    model = nn.Sequential(nn.Linear(4, 2), nn.BatchNorm1d(2))
    x = torch.randn(8, 4)
    recalibrate(model, [(x, torch.zeros(8))])
    torch.testing.assert_close(model[1].running_mean, model[0](x).mean(0).detach())
    assert accuracy(model, [(x, model.eval()(x).argmax(1))]) == 1.0
