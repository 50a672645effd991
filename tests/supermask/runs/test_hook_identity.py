"""What hooks are of a run: its identity, its state, its errors; and what is refused."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch

from supermask.methods.edge_popup import EP
from supermask.runs.folder import RunFolderError
from supermask.runs.hook import Begun, Hook, HookError, Now
from supermask.runs.options import RecipeError, RunResult
from supermask.runs.records import Epoch
from tests.graphs import graphs  # noqa: F401
from tests.supermask.runs.small_runs import (
    BASE,
    Killed,
    a_save_every,
    last_state,
    left_by,
    placed,
    same,
    watched,
)
from tests.supermask.runs.some_hooks import Clipped, Counted, Diary, Drawing, Shrunk


def test_state_is_saved_and_is_no_setting(tmp_path: Path) -> None:
    placed(replace(BASE, hooks=(Counted(),)), tmp_path / "whole").execute()
    used = Counted()
    with watched(150), a_save_every(1), pytest.raises(Killed):
        placed(replace(BASE, hooks=(used,)), tmp_path / "run", checkpoint_seconds=1).execute()
    assert int(used.count) % 3, "a count from 0 would be another"
    placed(replace(BASE, hooks=(Counted(),)), tmp_path / "run", resume=True).execute()
    assert same(left_by(tmp_path / "run"), left_by(tmp_path / "whole"))
    assert "count" not in replace(BASE, hooks=(used,)).said()["hooks"][0]


def test_a_hook_that_may_change_training_is_part_of_what_a_run_is(tmp_path: Path) -> None:
    recipe = replace(BASE, hooks=(Clipped(most=0.5),))
    said, code = recipe.said(), recipe.code()
    assert said["hooks"] == [{"type": "some_hooks.Clipped", "most": 0.5}]
    assert set(code["hooks.0"]["source"]) == {"some_hooks"}
    for hooks in ((), (Diary(),), (Drawing(),)):
        assert replace(BASE, hooks=hooks).said() == BASE.said()
        assert replace(BASE, hooks=hooks).code() == BASE.code()
    with watched(100), a_save_every(3), pytest.raises(Killed):
        placed(recipe, tmp_path / "run", checkpoint_seconds=3).execute()
    for other in ((), (Clipped(most=0.25),), (Clipped(most=0.5), Shrunk())):
        with pytest.raises(RunFolderError, match=r"holds a run of another configuration: .*hooks"):
            placed(replace(BASE, hooks=other), tmp_path / "run", resume=True).execute()
    placed(replace(recipe, hooks=(Diary(), *recipe.hooks)), tmp_path / "run", resume=True).execute()


def test_hooks_are_called_in_order(tmp_path: Path) -> None:
    order: list[str] = []

    @dataclass(frozen=True)
    class Named(Hook):
        name: str

        def end(self, result: RunResult) -> None:
            order.append(self.name)

    placed(replace(BASE, hooks=(Named("b"), Named("a"), Named("b"))), tmp_path / "run").execute()
    assert order == ["b", "a", "b"]


def test_what_raises_ends_the_run_with_its_name_and_the_run_goes_on_when_it_is_mended(tmp_path: Path) -> None:
    placed(BASE, tmp_path / "whole").execute()

    @dataclass
    class Fails(Hook):
        changes_training = False
        place: str = "end_epoch"

        def _fail(self, *given: Any, place: str) -> None:
            if place == self.place:
                raise LookupError("no such table")

        def end_epoch(self, now: Now, record: Epoch) -> None:
            self._fail(place="end_epoch")

        def after_step(self, now: Now) -> None:
            self._fail(place="after_step" if now.step == 7 else "")

        def end(self, result: RunResult) -> None:
            self._fail(place="end")

        def close(self) -> None:
            self._fail(place="close")

    for place, step in (("end_epoch", 5), ("after_step", 7), ("end", 20), ("close", 20)):
        folder = tmp_path / place
        goes_on = "what the run saved stands" if place == "close" else "mend it, and --resume goes on"
        said = rf"hook Fails.{place} failed after {step} steps: LookupError: no such table; {goes_on}"
        with pytest.raises(HookError, match=said) as error:
            placed(replace(BASE, hooks=(Fails(place),)), folder).execute()
        assert error.value.status == 1
        placed(replace(BASE, hooks=(Fails("nowhere"),)), folder, resume=True).execute()
        assert same(left_by(folder), left_by(tmp_path / "whole")), place


def test_a_hook_that_is_part_of_the_run_says_that_other_code_is_another_run(tmp_path: Path) -> None:
    class Breaks(Hook):
        def before_step(self, now: Now) -> None:
            raise ValueError("bad")

    with pytest.raises(HookError, match=r"Breaks.before_step failed after 0 steps.*it is another run"):
        placed(replace(BASE, hooks=(Breaks(),)), tmp_path / "run").execute()


def test_a_state_that_no_checkpoint_gives_back_is_refused_when_it_is_saved(tmp_path: Path) -> None:
    @dataclass
    class Keeps(Hook):
        changes_training = False
        what: Any

        def state_dict(self) -> Any:
            return self.what

        def load_state_dict(self, state: Any) -> None:
            self.what = state

    for number, (what, says) in enumerate(
        (([1], "list in place of one"), ({"a": [1, {2}]}, r"set at it\['a'\]\[1\]"), ({"a": {None: 1}}, "the key None"))
    ):
        with pytest.raises(HookError, match=f"Keeps.state_dict gave {says}"):
            placed(replace(BASE, hooks=(Keeps(what),)), tmp_path / str(number)).execute()
    fine = {"a": [1, 2.0, "x", None, True, (torch.ones(2), {"b": b"c"})]}
    placed(replace(BASE, hooks=(Keeps(fine), Keeps({}))), tmp_path / "fine").execute()
    assert same(last_state(tmp_path / "fine")["hooks"]["test_hook_identity." + Keeps.__qualname__], [fine, {}])


@pytest.mark.parametrize("name", ["begin_cycle", "on_epoch_start", "evaluate"])
def test_a_place_of_a_method_is_said_to_be_one(name: str) -> None:
    with pytest.raises(
        TypeError, match=rf"Off.{name} is no hook here, and nothing calls it: a method \(supermask.Meth"
    ):
        type("Off", (Hook,), {name: lambda self, now: None})


@pytest.mark.parametrize(
    ("name", "says"), [("begin_cycle", "a Method has `begin`"), ("end_cycle", "supermask.Hook, has")]
)
def test_a_place_of_a_hook_is_said_to_be_one(name: str, says: str) -> None:
    with pytest.raises(TypeError, match=rf"Off.{name} is no hook here, and nothing calls it: .*{says}"):
        type("Off", (EP,), {name: lambda self, now: None})


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"method": "ep"}, r"method='ep': expected one that is made, such as supermask\.EP"),
        ({"method": EP}, r"method=<class .*EP'>: expected one that is made"),
        ({"network": "mine/cnn"}, r"network='mine/cnn': expected what makes an Arch.*Network\(name='mine/cnn'\)"),
    ],
)
def test_parts_of_another_type_are_refused_by_name(wrong: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        replace(BASE, **wrong)
    with pytest.raises(TypeError, match=r"allocate='erk': expected an Allocator, such as Allocator\(kind='erk'\)"):
        EP(remaining=0.1, allocate="erk")  # type: ignore[arg-type]


class Late(Hook):
    """Makes its state where a run begins."""

    changes_training = True

    def begin(self, run: Begun) -> None:
        self.loaded = getattr(self, "count", None)
        self.count = getattr(self, "count", 0)

    def after_step(self, now: Now) -> None:
        self.count += 1

    def state_dict(self) -> dict[str, int]:
        return {"count": self.count}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.count = state["count"]


def test_a_state_that_begin_makes_is_asked_for_too_early_and_what_is_loaded_is_there_in_begin(tmp_path: Path) -> None:
    says = r"hook Late\.state_dict failed before the run begins: AttributeError: .*'count'.*: set what it reads in __in"
    with pytest.raises(RecipeError, match=says):
        placed(replace(BASE, hooks=(Late(),)), tmp_path / "run").execute()
    assert not (tmp_path / "run").exists()

    class Early(Late):
        count = 0
        changes_training = False

    with watched(100), a_save_every(3), pytest.raises(Killed):
        placed(replace(BASE, hooks=(Early(),)), tmp_path / "run", checkpoint_seconds=3).execute()
    saved = last_state(tmp_path / "run")["hooks"]
    ((state,),) = saved.values()
    again = Early()
    placed(replace(BASE, hooks=(again,)), tmp_path / "run", resume=True).execute()
    assert again.loaded == state["count"] > 0
    assert again.count == 20


def test_a_name_that_is_almost_a_place_is_refused() -> None:
    for name, place in (
        ("before_steps", "before_step"), ("on_epoch_end", "end_epoch"), ("on_train_end", "end"),
        ("after_backwards", "after_backward"), ("load_statedict", "load_state_dict"), ("cycle_end", "end_cycle"),
    ):  # fmt: skip
        with pytest.raises(TypeError, match=rf"Off.{name} may be meant to be the hook {place}, and nothing calls it"):
            type("Off", (Hook,), {name: lambda self, *_: None})
    type("Fine", (Hook,), {"send": lambda self: None, "logs": lambda self: None, "restart": lambda self: None})


def test_half_a_state_and_a_change_in_one_process_are_refused() -> None:
    with pytest.raises(TypeError, match="Half has one of state_dict and load_state_dict"):
        type("Half", (Hook,), {"state_dict": lambda self: {}})
    with pytest.raises(TypeError, match="Alone has first_only = True and may change training"):
        type("Alone", (Hook,), {"first_only": True, "end_epoch": lambda self, now, record: None})
    type("Looks", (Hook,), {"first_only": True, "changes_training": False, "end_epoch": lambda self, *_: None})


@pytest.mark.parametrize(
    ("hooks", "says"),
    [(Diary(), "expected several"), ((Diary,), r"make one of it, Diary\(\)"), ((BASE.method,), "a method's hooks")],
)
def test_what_is_no_hook_is_refused(hooks: Any, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        replace(BASE, hooks=hooks)
