"""Architectures by name: what is built, what is refused, and that nothing outside is touched."""

import dataclasses
import json
import math
import subprocess
import sys

import pytest
import torch
from torch import nn
from torchvision import models

from supermask.networks import MLP, Architecture, architectures


def test_mlp_is_linear_norm_relu_blocks_and_a_bare_last_layer() -> None:
    network = Architecture(name="mlp", arguments={"sizes": [12, 7, 5, 3]}).build()
    kinds = [type(module) for module in network.children()]
    block = [nn.Linear, nn.BatchNorm1d, nn.ReLU]
    assert kinds == [nn.Flatten, *block, *block, nn.Linear]
    assert not any(name.endswith("bias") and "fc" in name for name, _ in network.named_parameters())
    assert network(torch.zeros(2, 3, 4)).shape == (2, 3)


def test_mlp_without_norm() -> None:
    assert not any(isinstance(module, nn.BatchNorm1d) for module in MLP([4, 4, 2], norm=False).modules())


@pytest.mark.parametrize("sizes", [[], [4], [4, 0], [4, -1], [4, 2.0], [4, True]])
def test_mlp_refuses_bad_sizes(sizes: list[int]) -> None:
    with pytest.raises(ValueError, match="sizes="):
        MLP(sizes)


def test_registered_names() -> None:
    names = architectures()
    assert {"mlp", "torchvision/resnet50", "torchvision/vit_b_16", "torchvision/regnet_y_128gf"} <= set(names)
    assert len(names) == 1 + len(models.list_models(module=models))
    assert not any("rcnn" in name or "quantized" in name or "fcn" in name for name in names)


def _families() -> list[str]:
    """The first network of every file of torchvision's."""
    first: dict[str, str] = {}
    for name in models.list_models(module=models):
        first.setdefault(models.get_model_builder(name).__module__, name)
    return list(first.values())


def _check_skeleton(name: str) -> None:
    network = Architecture(name=f"torchvision/{name}", arguments={"num_classes": 7}).skeleton()
    assert not [p for p in network.parameters() if p.device.type != "meta" and p.numel() > 100_000], name


@pytest.mark.filterwarnings("ignore:The default weight initialization")
@pytest.mark.parametrize("name", _families())
def test_skeleton_without_memory(name: str) -> None:
    """A skeleton's names and shapes are what a ticket is checked against, so each builder must survive it."""
    _check_skeleton(name)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:The default weight initialization")
def test_skeleton_of_every_classification_network() -> None:
    for name in models.list_models(module=models):
        _check_skeleton(name)


@pytest.mark.parametrize("name", ["torchvision/resnet18", "torchvision/regnet_y_400mf", "torchvision/swin_t"])
def test_skeleton_and_network_have_the_same_state(name: str) -> None:
    architecture = Architecture(name=name, arguments={"num_classes": 3})
    built, skeleton = architecture.build().state_dict(), architecture.skeleton().state_dict()
    assert {k: (v.shape, v.dtype) for k, v in built.items()} == {k: (v.shape, v.dtype) for k, v in skeleton.items()}
    assert all(tensor.device.type == "cpu" for tensor in built.values())


def test_arguments_reach_the_builder() -> None:
    network = Architecture(
        name="torchvision/resnet18", arguments={"num_classes": 3, "replace_stride_with_dilation": (False, False, False)}
    ).build()
    assert network.get_submodule("fc").out_features == 3


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("resnet50", "'torchvision/resnet50'"),
        ("torchvision/resnet5O", "'torchvision/resnet50'"),
        ("torchvision/ResNet50", "'torchvision/resnet50'"),
        ("mpl", "'mlp'"),
        ("os.system", "architectures()"),
        ("torchvision/fasterrcnn_resnet50_fpn", ""),
        ("torchvision/quantized_resnet50", ""),
        ("torchvision/models.resnet50", ""),
    ],
)
def test_unknown_names_are_refused_with_close_ones(name: str, hint: str) -> None:
    with pytest.raises(ValueError, match="no architecture is called") as caught:
        Architecture(name=name).build()
    assert repr(name) in str(caught.value)
    assert hint in str(caught.value)


@pytest.mark.parametrize("argument", ["weights", "pretrained"])
@pytest.mark.parametrize("value", ["DEFAULT", None, True])
def test_trained_weights_are_refused(argument: str, value: object) -> None:
    with pytest.raises(ValueError, match=f"{argument}="):
        Architecture(name="torchvision/resnet18", arguments={argument: value}).build()


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("mlp", {}),
        ("mlp", {"sizes": 3}),
        ("mlp", {"sizes": [3, 2], "depth": 1}),
        ("torchvision/resnet18", {"num_classes": "many"}),
        ("torchvision/resnet18", {"norm_layer": "torch.nn.BatchNorm2d"}),
        ("torchvision/resnet18", {"name": "resnet50"}),
        ("torchvision/resnet18", {"self": 1}),
    ],
)
def test_arguments_the_builder_does_not_take(name: str, arguments: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="cannot be built") as caught:
        Architecture(name=name, arguments=arguments).build()
    assert name in str(caught.value)


def test_a_huge_skeleton_takes_no_memory() -> None:
    network = Architecture(name="mlp", arguments={"sizes": [1 << 20, 1 << 30, 1]}).skeleton()
    assert {parameter.device.type for parameter in network.parameters()} == {"meta"}


@pytest.mark.parametrize("method", ["build", "skeleton"])
def test_random_state_is_untouched_but_used(method: str) -> None:
    architecture = Architecture(name="mlp", arguments={"sizes": [4, 3]})
    torch.manual_seed(1)
    before = torch.random.get_rng_state()
    network = getattr(architecture, method)()
    assert torch.equal(torch.random.get_rng_state(), before)
    if method == "build":
        assert torch.equal(network.fc1.weight, architecture.build().fc1.weight)
        torch.manual_seed(2)
        assert not torch.equal(network.fc1.weight, architecture.build().fc1.weight)


def test_default_device_of_the_caller_does_not_matter() -> None:
    with torch.device("meta"):
        network = Architecture(name="mlp", arguments={"sizes": [4, 3]}).build()
    assert all(tensor.device.type == "cpu" for tensor in network.state_dict().values())


def test_json_round_trip() -> None:
    architecture = Architecture(
        name="mlp", arguments={"sizes": (4, 3), "b": True, "f": 0.1, "n": None, "d": {"x": [1, "y"]}}
    )
    assert architecture.arguments["sizes"] == [4, 3]
    assert Architecture.from_json(json.loads(json.dumps(architecture.to_json()))) == architecture
    assert json.loads(json.dumps(dataclasses.asdict(architecture))) == architecture.to_json()
    assert str(architecture) == 'mlp(sizes=[4, 3], b=true, f=0.1, n=null, d={"x": [1, "y"]})'


@pytest.mark.parametrize("value", [torch.zeros(1), nn.ReLU, {1: 2}, b"x", {1}, [object()]])
def test_arguments_json_cannot_hold(value: object) -> None:
    with pytest.raises(TypeError, match=r"arguments\.a"):
        Architecture(name="mlp", arguments={"a": value})


@pytest.mark.parametrize("value", [math.nan, math.inf, [0.0, -math.inf]])
def test_arguments_are_finite(value: object) -> None:
    with pytest.raises(ValueError, match=r"arguments\.a"):
        Architecture(name="mlp", arguments={"a": value})


@pytest.mark.parametrize(
    "value",
    [None, [], "mlp", {}, {"name": "mlp"}, {"name": "mlp", "arguments": []}, {"name": "a", "arguments": {}, "c": 1}],
)
def test_json_of_another_structure(value: object) -> None:
    with pytest.raises(ValueError, match="expected"):
        Architecture.from_json(value)


def test_name_is_a_string() -> None:
    with pytest.raises(TypeError, match="name=1"):
        Architecture.from_json({"name": 1, "arguments": {}})


def test_importing_does_not_import_torchvision() -> None:
    code = "import sys; import supermask.networks; sys.exit('torchvision' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
