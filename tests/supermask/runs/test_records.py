"""Records go into JSON and come back, and what cannot be one is named."""

import json
from typing import Any

import pytest

from supermask.runs.records import (
    CycleResult,
    EdgeRanks,
    Ended,
    Epoch,
    EpochTime,
    Evaluation,
    Exported,
    Histogram,
    LayerRecord,
    Record,
    RunReadError,
    RunSummary,
    SampledEdges,
)

LAYER = LayerRecord(edges=9, kept=3, ever=5, scores=Histogram(low=0.0, high=1.5, counts=(3, 6)))
CYCLE = CycleResult(
    cycle=2, rate=0.5, remaining=0.25, kept=3, edges=9, loss=0.5, train_accuracy=0.75, dying=0.5, explored=0.25,
    apparent=0.125, apparent_of_all=0.25, dying_cumulative=0.375, dead_units={"fc1": 2},
)  # fmt: skip
TICKET = Exported(file="t.safetensors", bytes=10, dense_bytes=160, accuracy=0.5, same_logits=True)
RECORDS = (
    Epoch(cycle=1, epoch=1, step=31, lr=0.3, loss=1.5, train_accuracy=0.5, remaining=0.25, dying=0.75),
    CYCLE,
    CycleResult(**{**vars(CYCLE), "layers": {"fc1": LAYER}, "dead_units": {}}),
    Evaluation(cycle=1, accuracy=0.5),
    Evaluation(cycle=1, accuracy=0.5, recalibrated=0.625),
    TICKET,
    Ended(),
    EpochTime(cycle=1, epoch=1, step=31, seconds=1.5, data_wait=0.25),
    SampledEdges(layers=("fc1", "fc2"), edges=((0, 5), (1, 2))),
    EdgeRanks(cycle=1, epoch=0, ranks=(0.5, 0.25), selected=(0, 1)),
    RunSummary(
        name="x", seed=2**64 - 1, finished=True, settings={"training": {"lr": 0.5}}, cycles=(CYCLE,), tickets=(TICKET,),
        seconds=1.5,
    ),
)  # fmt: skip


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: type(record).__name__)
def test_a_record_comes_back(record: Record) -> None:
    assert type(record).from_event(json.loads(json.dumps(record.to_event())), "here") == record


def test_a_line_has_the_fields_in_order_and_no_defaults() -> None:
    assert json.dumps(Evaluation(cycle=1, accuracy=0.5).to_event()) == (
        '{"event": "evaluate", "cycle": 1, "accuracy": 0.5}'
    )
    assert list(TICKET.to_event()) == ["event", "path", "bytes", "dense_bytes", "accuracy", "same_logits"]
    assert json.dumps(Ended().to_event()) == '{"event": "end"}'
    assert "layers" not in CYCLE.to_event()
    assert RECORDS[2].to_event()["layers"]["fc1"]["scores"] == {"low": 0.0, "high": 1.5, "counts": [3, 6]}
    assert RECORDS[2].to_event()["dead_units"] == {}
    assert "event" not in RECORDS[-1].to_event()["tickets"][0]


@pytest.mark.parametrize(
    ("record", "change", "says"),
    [
        (RECORDS[0], {"lr": "low"}, "here is damaged: lr is 'low'"),
        (RECORDS[0], {"step": 1.5}, "here is damaged: step is 1.5"),
        (RECORDS[0], {"step": True}, "here is damaged: step is True"),
        (RECORDS[0], {"loss": None}, "here is damaged: loss is None"),
        (RECORDS[4], {"recalibrated": None}, "here is damaged: recalibrated is None"),
        (RECORDS[1], {"dead_units": {"fc1": "2"}}, "here is damaged: dead_units is '2'"),
        (RECORDS[2], {"layers": {"fc1": {"edges": 3, "ever": 1}}}, "here layer 'fc1' has no kept"),
        (RECORDS[2], {"layers": {"fc1": 3}}, "here layer 'fc1' is damaged: layers is 3"),
        (TICKET, {"path": 3}, "here is damaged: path is 3"),
        (TICKET, {"same_logits": 1}, "here is damaged: same_logits is 1"),
        (RECORDS[8], {"edges": [[0, "5"]]}, "here is damaged: edges is '5'"),
        (RECORDS[8], {"edges": {}}, "here is damaged: edges is {}"),
    ],
)
def test_a_field_of_another_type_is_named(record: Record, change: dict[str, Any], says: str) -> None:
    with pytest.raises(RunReadError, match=says.replace("{", r"\{")):
        type(record).from_event(record.to_event() | change, "here")


def test_a_missing_field_is_named_and_an_unknown_one_passed_over() -> None:
    event = TICKET.to_event()
    assert Exported.from_event(event | {"other": 1}, "here") == TICKET
    del event["path"]
    with pytest.raises(RunReadError, match="here has no path: damaged, or written by another release"):
        Exported.from_event(event, "here")
