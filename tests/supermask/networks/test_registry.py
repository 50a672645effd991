"""Networks of the user by name: what is registered, what is refused, and that arguments are held to annotations."""

import importlib
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal, Optional, Union

import numpy as np
import pytest
import torch
from torch import nn

import supermask
from supermask import Architecture, convert, exports, inspect, load, save
from supermask.networks.architecture import architectures
from supermask.networks.arguments import bound_to
from supermask.networks.registry import BUILDERS, Registered, register
from supermask.networks.small import MLP


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    """The registry is this process's: what a test registers is taken out again."""
    before = dict(BUILDERS)
    yield
    BUILDERS.clear()
    BUILDERS.update(before)


def cnn(num_classes: int, width: int = 4) -> nn.Module:
    return nn.Sequential(nn.Conv2d(1, width, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(width * 16, num_classes))


def other(num_classes: int) -> nn.Module:
    return nn.Linear(3, num_classes)


def test_a_registered_network_is_an_architecture() -> None:
    assert register("mine/cnn", cnn, (1, 4, 4)) is cnn
    architecture = Architecture(name="mine/cnn", arguments={"num_classes": 3, "width": 8})
    assert architecture.build()(torch.zeros(2, 1, 4, 4)).shape == (2, 3)
    assert {p.device.type for p in architecture.skeleton().parameters()} == {"meta"}
    assert exports.input_shape(architecture) == (1, 4, 4)
    assert "mine/cnn" in architectures()


def test_it_decorates_functions_and_classes() -> None:
    @supermask.register("mine/f", input_shape=lambda arguments: (arguments.get("width", 7),))
    def made(width: int = 7) -> nn.Module:
        return nn.Linear(width, 2)

    @supermask.register("mine/class")
    class Net(nn.Sequential):
        def __init__(self, width: int) -> None:
            super().__init__(nn.Linear(width, 2))

    assert made().in_features == 7
    assert isinstance(Architecture(name="mine/class", arguments={"width": 3}).build(), Net)
    shapes = [exports.input_shape(Architecture(name="mine/f", arguments=a)) for a in ({}, {"width": 2})]
    assert shapes == [(7,), (2,)]
    assert exports.input_shape(Architecture(name="mine/class", arguments={"width": 3})) is None


def test_a_ticket_has_the_name_and_needs_the_registration(tmp_path: Path) -> None:
    register("mine/cnn", cnn)
    architecture = Architecture(name="mine/cnn", arguments={"num_classes": 3})
    model = convert(architecture.build(), seed=1, remaining=0.5)
    save(model, tmp_path / "ticket", architecture=architecture)
    x = torch.randn(2, 1, 4, 4)
    assert torch.equal(load(tmp_path / "ticket", weights="cached")(x), model.eval()(x))
    assert str(Path(__file__).stem).encode() not in (tmp_path / "ticket").read_bytes()
    del BUILDERS["mine/cnn"]
    assert inspect(tmp_path / "ticket").architecture == architecture
    with pytest.raises(supermask.TicketError, match=r"'mine/cnn'.*supermask\.register.*--import MODULE"):
        load(tmp_path / "ticket")


MODULE = (
    "from torch import nn\nimport supermask\n\n@supermask.register('mine/again')\ndef build():\n    return nn.ReLU()\n"
)


def test_the_same_builder_once_more_is_no_clash(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "net_again.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    first = importlib.import_module("net_again")
    again = importlib.reload(first)
    spec = importlib.util.spec_from_file_location("__mp_main__", tmp_path / "net_again.py")
    assert spec is not None
    assert spec.loader is not None
    main = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "__mp_main__", main)
    spec.loader.exec_module(main)
    assert BUILDERS["mine/again"].builder is main.build is not again.build
    for copy in (partial(cnn, width=2), partial(cnn, width=2)):
        register("mine/part", copy)
    for _ in range(2):
        register("mine/cnn", cnn)


def made_by(width: int) -> Callable[..., nn.Module]:
    def build(num_classes: int) -> nn.Module:
        return nn.Linear(width, num_classes)

    return build


@pytest.mark.parametrize("kind", [torch.tensor, np.array])
def test_a_builder_made_with_arrays_is_told_by_them(kind: Any) -> None:
    array = kind([3, 4])
    for _ in range(2):
        register("mine/number", partial(cnn, width=np.float64(2.0)))
        register("mine/part", partial(cnn, array, width=[array]))
    for other in (partial(cnn, kind([3, 4]), width=[array]), partial(cnn, array, width=[kind([3, 4])])):
        with pytest.raises(ValueError, match="is taken by"):
            register("mine/part", other)


@pytest.mark.parametrize(
    ("one", "two"),
    [
        (cnn, other),
        (partial(cnn, width=2), partial(cnn, width=3)),
        (partial(cnn, width=2), cnn),
        (made_by(2), made_by(3)),
        (lambda width: nn.Linear(width, 1), lambda width: nn.Linear(1, width)),
    ],
)
def test_a_name_is_taken_once(one: Any, two: Any) -> None:
    register("mine/net", one)
    with pytest.raises(ValueError, match=r"the name 'mine/net' is taken by .*test_registry"):
        register("mine/net", two)
    assert BUILDERS["mine/net"].builder is one


@pytest.mark.parametrize(
    "name",
    ["", "mine cnn", "/cnn", "mine/", "mine//cnn", "../cnn", "mine:cnn", "é", ".x", "a" * 101, "mine/cnn\n"],
)
def test_odd_names_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match="the name of a network is"):
        register(name, cnn)


@pytest.mark.parametrize("name", ["torchvision/mine", "timm/mine", "transformers/mine", "mlp", "resnet18"])
def test_names_of_others_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match=f"the name '{name}' is"):
        register(name, cnn)
    assert BUILDERS.get(name) != Registered(builder=cnn)


@pytest.mark.parametrize("builder", ["cnn", 3, nn.Linear(1, 1)])
def test_what_is_no_builder_is_refused(builder: Any) -> None:
    with pytest.raises(TypeError, match="expected a class or a function"):
        register("mine/net", builder)
    with pytest.raises(TypeError, match="expected a class or a function"):
        register("mine/net")(builder)


@pytest.mark.parametrize("shape", [3, (0, 3), (1.0,), "3", (True,)])
def test_input_shapes_are_integers(shape: Any) -> None:
    with pytest.raises(TypeError, match="input_shape="):
        register("mine/net", cnn, shape)


def test_a_builder_says_what_it_takes_by_name() -> None:
    def by_position(width: int, /) -> nn.Module:
        return nn.Linear(width, 1)

    with pytest.raises(TypeError, match="takes width by position alone"):
        register("mine/net", by_position)


def test_what_a_builder_gives_is_a_module() -> None:
    register("mine/none", lambda: None)  # type: ignore[arg-type,return-value]
    with pytest.raises(ValueError, match="its builder gave NoneType: expected a module"):
        Architecture(name="mine/none").build()


def builder(
    flag: bool = False,
    count: int = 1,
    rate: float = 0.5,
    name: str = "a",
    maybe: int | None = None,
    older: Optional[str] = None,
    either: Union[int, Sequence[int]] = 1,  # noqa: UP007
    kind: Literal["a", "b", 3] = "a",
    sizes: tuple[int, ...] = (),
    pair: tuple[int, str] = (1, "a"),
    stages: Sequence[tuple[int, float]] = (),
    plain: tuple = (),  # type: ignore[type-arg]
    extra: Mapping[str, int] = {},
    bare: dict = {},  # type: ignore[type-arg]  # noqa: B006
    noted: Annotated[int, "of layers"] = 1,
    written: "tuple[int, ...] | None" = None,
    unseen: "NotThere" = 1,  # type: ignore[name-defined]  # noqa: F821
    free=None,  # type: ignore[no-untyped-def]
    dtype: torch.dtype = torch.float32,
) -> nn.Module:
    raise NotImplementedError


@pytest.mark.parametrize(
    ("given", "taken"),
    [
        ({"flag": True, "count": 3, "rate": 1, "name": "b"}, None),
        ({"rate": 0.25, "maybe": None, "older": None}, None),
        ({"maybe": 3, "older": "x", "either": 2}, None),
        ({"either": [1, 2], "kind": 3}, None),
        ({"sizes": [1, 2, 3], "pair": [2, "b"]}, {"sizes": (1, 2, 3), "pair": (2, "b")}),
        ({"stages": [[1, 0.5], [2, 1]], "plain": [1, "x"]}, {"stages": [(1, 0.5), (2, 1)], "plain": (1, "x")}),
        ({"extra": {"a": 1}, "bare": {"a": [1]}, "noted": 2}, None),
        ({"written": [1]}, {"written": (1,)}),
        ({"unseen": [1], "free": {"a": None}, "dtype": "float32"}, None),
    ],
)
def test_arguments_are_given_as_annotated(given: dict[str, Any], taken: dict[str, Any] | None) -> None:
    found = bound_to(builder, given)
    assert found == (given if taken is None else taken)
    assert {name: type(value) for name, value in found.items()} == {
        name: type(value) for name, value in (taken or given).items()
    }


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("flag", 1, "expected bool"),
        ("count", True, "expected int"),
        ("count", 1.0, "expected int"),
        ("rate", "0.5", "expected float"),
        ("rate", True, "expected float"),
        ("name", None, "expected str"),
        ("maybe", "3", r"expected int \| None"),
        ("older", 3, "expected"),
        ("either", [1, "2"], r"expected .*Sequence\[int\]"),
        ("kind", "c", r"expected Literal\['a', 'b', 3\]"),
        ("kind", True, "expected Literal"),
        ("sizes", 3, r"expected tuple\[int, \.\.\.\]"),
        ("sizes", [1, 2.5], r"expected tuple\[int, \.\.\.\]"),
        ("pair", [1], r"expected tuple\[int, str\]"),
        ("stages", [[1, 0.5, 2]], r"expected Sequence\[tuple\[int, float\]\]"),
        ("extra", {"a": "b"}, r"expected Mapping\[str, int\]"),
        ("bare", [1], "expected dict"),
        ("noted", "2", "expected"),
        ("written", 3, r"expected tuple\[int, \.\.\.\] \| None"),
    ],
)
def test_a_wrong_argument_is_refused_by_name_and_value(name: str, value: object, says: str) -> None:
    with pytest.raises(TypeError, match=says) as caught:
        bound_to(builder, {name: value})
    assert str(caught.value).startswith(f"{name}={value!r}: ")


def test_arguments_that_are_not_there() -> None:
    with pytest.raises(TypeError, match="no argument is called 'coutn': did you mean count"):
        bound_to(builder, {"coutn": 1})
    with pytest.raises(TypeError, match="no argument is called 'zzz': it takes num_classes, width"):
        bound_to(cnn, {"zzz": 1, "num_classes": 1})
    with pytest.raises(TypeError, match="num_classes is missing"):
        bound_to(cnn, {"width": 1})
    register("mine/cnn", cnn)
    with pytest.raises(
        ValueError, match=r"mine/cnn\(num_classes=3, width=\"wide\"\) cannot be built.*width='wide': exp"
    ):
        Architecture(name="mine/cnn", arguments={"num_classes": 3, "width": "wide"}).build()


def test_builders_of_every_kind_say_what_they_take() -> None:
    class Called:
        def __call__(self, width: "int" = 1) -> nn.Module:
            return nn.Linear(width, 1)

    class Inherited(MLP):
        pass

    for one in (Called(), partial(cnn, 3), Inherited):
        with pytest.raises(TypeError, match=r"(width|norm)='x': expected"):
            bound_to(one, {"norm": "x", "sizes": [1, 2]} if one is Inherited else {"width": "x"})
    assert bound_to(lambda **arguments: nn.ReLU(), {"anything": [1]}) == {"anything": [1]}


def test_a_package_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("supermask.networks.packages.find_spec", lambda name: None)
    for package in ("timm", "transformers"):
        with pytest.raises(ValueError, match=f"which is not installed: pip install {package}"):
            Architecture(name=f"{package}/x").build()
    assert exports.input_shape(Architecture(name="timm/resnet10t")) is None


def test_a_builder_made_twice_that_refers_to_itself_is_one() -> None:
    def make(width: int, shift: torch.Tensor) -> Callable[..., nn.Module]:
        def build(num_classes: int, depth: int = 1) -> nn.Module:
            layers = [build(num_classes, depth - 1)] if depth else [nn.Linear(width + len(shift), num_classes)]
            return nn.Sequential(*layers)

        return register("mine/deep", build)

    shift = torch.zeros(2)
    make(3, shift)
    assert Architecture(name="mine/deep", arguments={"num_classes": 4}).build()(torch.zeros(1, 5)).shape == (1, 4)
    make(3, shift)
    with pytest.raises(ValueError, match="'mine/deep' is taken by"):
        make(4, shift)
    with pytest.raises(ValueError, match="'mine/deep' is taken by"):
        make(3, torch.zeros(2))


def test_numbers_of_numpy_are_pythons_as_in_json() -> None:
    @register("mine/rate")
    def build(num_classes: int, rate: float = 0.1, name: str = "") -> nn.Module:
        return nn.Sequential(nn.Dropout(rate), nn.Linear(3, num_classes))

    made = Architecture(name="mine/rate", arguments={"num_classes": 3, "rate": np.float64(0.5), "name": np.str_("x")})
    assert [type(value) for value in made.arguments.values()] == [int, float, str]
    assert made.build()[0].p == 0.5  # type: ignore[index]


def test_what_the_data_and_the_file_say_is_no_argument(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="arguments num_classes=7: it is the data set's: leave it out"):
        supermask.Network(name="mine/cnn", arguments={"num_classes": 7})
    with pytest.raises(ValueError, match="arguments config='x': it is the file's: leave it out"):
        supermask.Network(name="transformers/x", arguments={"config": "x"}, config=tmp_path / "config.json")
