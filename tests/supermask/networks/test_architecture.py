"""Architectures by name: what is built, what is refused, and that nothing outside is touched."""

import dataclasses
import json
import math
import subprocess
import sys
from enum import Enum
from http import HTTPStatus

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torchvision import models

from supermask.edges.base import Edges
from supermask.edges.in_model import searched_edges
from supermask.networks.architecture import Architecture, architectures
from supermask.networks.convert import convert, replace_layers
from supermask.networks.small import MLP


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
    own = ["mlp", "conv2", "conv4", "conv6", "conv8", "vgg16_bn", "resnet18", "resnext29_32x4d", "convmixer"]
    assert [name for name in names if "/" not in name] == own
    assert {"torchvision/resnet50", "torchvision/vit_b_16", "torchvision/regnet_y_128gf"} <= set(names)
    assert len(names) == len(set(names)) == len(own) + len(models.list_models(module=models))
    assert not any("rcnn" in name or "quantized" in name or "fcn" in name for name in names)


@pytest.mark.slow
def test_every_classification_network_converts() -> None:
    """A skeleton takes no memory, and has the names and shapes that a ticket is checked against.

    Converted, it has nothing left dense that has a masked form: norms and biases, 3 % of the parameters at most.
    """
    for name in models.list_models(module=models):
        model = Architecture(name=f"torchvision/{name}", arguments={"num_classes": 7}).skeleton()
        assert not [p for p in model.parameters() if p.device.type != "meta" and p.numel() > 100_000], name
        edges = 0

        def build(_name: str, weight: Tensor, _bias: Tensor | None) -> tuple[Edges, None]:
            nonlocal edges
            edges += weight.numel()
            place = {"seed": 0, "layer": 0, "generation": 0, "weights": "signed_constant", "constant": 1.0}
            return Edges(weight.shape, **place, device="meta"), None  # type: ignore[arg-type]

        parameters = sum(parameter.numel() for parameter in model.parameters())
        converted = replace_layers(model, build)
        dense = (nn.Linear, nn.Conv2d, nn.Conv3d, nn.MultiheadAttention)
        assert not [path for path, module in converted.named_modules() if isinstance(module, dense)], name
        assert edges > 0.97 * parameters, name


@pytest.mark.parametrize("name", ["googlenet", "inception_v3"])
def test_no_auxiliary_outputs_unless_asked_for(name: str, recwarn: pytest.WarningsRecorder) -> None:
    def network(**arguments: object) -> nn.Module:
        return Architecture(name=f"torchvision/{name}", arguments={"num_classes": 3, **arguments}).build()

    model = convert(network(), 0, remaining=0.5).train()
    assert not recwarn.list
    logits = model(torch.randn(2, 3, 75, 75))
    assert isinstance(logits, Tensor)
    assert logits.shape == (2, 3)
    logits.square().sum().backward()
    assert all(edges.scores.grad is not None for edges in searched_edges(model).values())
    extra = network(aux_logits=True).state_dict().keys() - network(init_weights=True).state_dict().keys()
    assert {key.split(".")[0].rstrip("12").lower() for key in extra} == {"aux" if name == "googlenet" else "auxlogits"}


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
        ("resnet1B", "'resnet18' or 'torchvision/resnet18'"),
        ("ResNet18", "'resnet18' or 'torchvision/resnet18'"),
        ("torchvision/vgg16_nb", "'torchvision/vgg16_bn'"),
        ("conv5", "'conv4'"),
        ("convmixer256", "'convmixer'"),
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
        ("mlp", {"sizes": [3, 2], "norm": "no"}),
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


def test_a_file_cannot_ask_for_more_layers_than_can_be_built() -> None:
    Architecture(name="mlp", arguments={"sizes": [1] * 1001, "norm": False}).skeleton()
    with pytest.raises(ValueError, match=r"1,001 layers: at most 1,000"):
        Architecture(name="mlp", arguments={"sizes": [1] * 1002}).build()
    with pytest.raises(ValueError, match=r"more than 10,000 tensors"):
        Architecture(
            name="torchvision/mobilenet_v2", arguments={"inverted_residual_setting": [[1, 8, 10**6, 1]]}
        ).skeleton()


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


class Kind(str, Enum):  # noqa: UP042
    WIDE = "wide"


@pytest.mark.parametrize(
    ("value", "plain"),
    [
        (np.float64(0.5), 0.5),
        (np.str_("a"), "a"),
        (Kind.WIDE, "wide"),
        (HTTPStatus.OK, 200),
        ({Kind.WIDE: 1}, {"wide": 1}),
    ],
)
def test_arguments_are_what_json_gives_back(value: object, plain: object) -> None:
    found = Architecture(name="mlp", arguments={"a": value}).arguments["a"]
    assert found == plain == json.loads(json.dumps(found))
    assert type(found) is type(plain)
    assert [type(name) for name in found] == [str] if isinstance(found, dict) else True


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
