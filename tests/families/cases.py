"""Small networks, one of each family, and an input of each."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn


@dataclass(frozen=True, kw_only=True)
class Case:
    """A network.

    Attributes:
        name: of the package, a slash, and of the network in it.
        build: makes it, with random weights.
        shape: of a batch of images or waves; None for words.
        called: the network on a batch.
    """

    name: str
    build: Callable[[], nn.Module]
    shape: tuple[int, ...] | None
    called: Callable[[nn.Module, Tensor], Tensor] = field(default=lambda network, x: network(x))

    def input(self) -> Tensor:
        """A batch, the same one each time."""
        generator = torch.Generator().manual_seed(0)
        if self.shape is None:
            return torch.randint(4, 100, (2, 12), generator=generator)
        return torch.randn(self.shape, generator=generator)


# Of torchvision, the smallest of each family: arguments beside the number of classes, and the side of an image.
_TORCHVISION: dict[str, tuple[dict[str, Any], int]] = {
    "alexnet": ({}, 64),
    "convnext_tiny": ({}, 64),
    "densenet121": ({}, 64),
    "efficientnet_b0": ({}, 64),
    "efficientnet_v2_s": ({}, 64),
    "googlenet": ({"aux_logits": False, "init_weights": False}, 64),
    "inception_v3": ({"aux_logits": False, "init_weights": False}, 96),
    "maxvit_t": ({}, 224),
    "mnasnet0_5": ({}, 64),
    "mobilenet_v2": ({}, 64),
    "mobilenet_v3_small": ({}, 64),
    "regnet_x_400mf": ({}, 64),
    "regnet_y_400mf": ({}, 64),
    "resnet18": ({}, 64),
    "resnext50_32x4d": ({}, 64),
    "shufflenet_v2_x0_5": ({}, 64),
    "squeezenet1_0": ({}, 64),
    "swin_t": ({}, 64),
    "swin_v2_t": ({}, 64),
    "vgg11_bn": ({}, 64),
    "vit_b_16": ({"image_size": 32}, 32),
    "wide_resnet50_2": ({}, 64),
}

TIMM = {
    "test_byobnet": 64,
    "test_convnext": 64,
    "test_convnext2": 64,
    "test_efficientnet": 64,
    "test_efficientnet_evos": 64,
    "test_efficientnet_gn": 64,
    "test_efficientnet_ln": 64,
    "test_mambaout": 64,
    "test_nfnet": 64,
    "test_resnet": 64,
    "test_vit": 160,
    "test_vit2": 160,
    "test_vit_relpos": 160,
    "resnet10t": 64,
    "resnetv2_50x1_bit": 64,
    "tf_mobilenetv3_small_minimal_100": 64,
    "lcnet_050": 64,
    "ghostnet_050": 64,
    "edgenext_xx_small": 64,
    "levit_128s": 224,
    "mobilevit_xxs": 64,
    "pvt_v2_b0": 64,
    "xcit_nano_12_p16_224": 224,
}

WORDS: dict[str, Any] = {"vocab_size": 100}
TEXT: dict[str, tuple[str, dict[str, Any]]] = {  # the class, and what of its configuration is small
    "bert": ("BertForSequenceClassification", {"num_hidden_layers": 2, "hidden_size": 32, "num_attention_heads": 2,
                                               "intermediate_size": 64}),
    "gpt2": ("GPT2LMHeadModel", {"n_embd": 32, "n_layer": 2, "n_head": 2, "n_positions": 32}),
    "llama": ("LlamaForCausalLM", {"num_hidden_layers": 2, "hidden_size": 32, "num_attention_heads": 2,
                                   "intermediate_size": 64}),
    "mamba": ("MambaForCausalLM", {"num_hidden_layers": 2, "hidden_size": 32, "state_size": 4}),
    "t5": ("T5EncoderModel", {"d_model": 32, "d_kv": 16, "d_ff": 64, "num_layers": 2, "num_heads": 2}),
    "distilbert": ("DistilBertForSequenceClassification", {"dim": 32, "n_layers": 2, "n_heads": 2, "hidden_dim": 64}),
    "albert": ("AlbertForSequenceClassification", {"num_hidden_layers": 2, "hidden_size": 32, "embedding_size": 16,
                                                   "num_attention_heads": 2, "intermediate_size": 64}),
    "bloom": ("BloomForCausalLM", {"hidden_size": 32, "n_layer": 2, "n_head": 2}),
    "gemma": ("GemmaForCausalLM", {"num_hidden_layers": 2, "hidden_size": 32, "num_attention_heads": 2,
                                   "num_key_value_heads": 1, "head_dim": 16, "intermediate_size": 64}),
}  # fmt: skip
SIGNALS: dict[str, tuple[str, dict[str, Any], tuple[int, ...]]] = {
    "vit": ("ViTForImageClassification", {"num_hidden_layers": 2, "hidden_size": 32, "num_attention_heads": 2,
                                          "intermediate_size": 64, "image_size": 32, "patch_size": 8}, (2, 3, 32, 32)),
    "convnext": ("ConvNextForImageClassification", {"hidden_sizes": [8, 16, 24, 32], "depths": [1, 1, 1, 1]},
                 (2, 3, 64, 64)),
    "wav2vec2": ("Wav2Vec2ForSequenceClassification", {
        "num_hidden_layers": 2, "hidden_size": 32, "num_attention_heads": 2, "intermediate_size": 64,
        "conv_dim": (16, 16), "conv_stride": (5, 2), "conv_kernel": (10, 3), "num_conv_pos_embeddings": 16,
        "num_conv_pos_embedding_groups": 2, "num_feat_extract_layers": 2, "classifier_proj_size": 8}, (2, 2000)),
}  # fmt: skip


def cases(package: str) -> list[Case]:
    """The networks of one package."""
    return list({"torchvision": _torchvision, "timm": _timm, "transformers": _transformers}[package]())


def _torchvision() -> Iterator[Case]:
    from torchvision import models

    for name, (arguments, side) in _TORCHVISION.items():

        def build(name: str = name, arguments: dict[str, Any] = arguments) -> nn.Module:
            return models.get_model(name, weights=None, num_classes=5, **arguments)  # type: ignore[no-any-return]

        yield Case(name=f"torchvision/{name}", build=build, shape=(4, 3, side, side))


def _timm() -> Iterator[Case]:
    import timm

    for name, side in TIMM.items():

        def build(name: str = name) -> nn.Module:
            return timm.create_model(name, num_classes=5)  # type: ignore[no-any-return]

        yield Case(name=f"timm/{name}", build=build, shape=(2, 3, side, side))


def _transformers() -> Iterator[Case]:
    import transformers

    small = {name: (kind, {**WORDS, **given}, None) for name, (kind, given) in TEXT.items()}
    for name, (kind, given, shape) in {**small, **SIGNALS}.items():

        def build(kind: Any = getattr(transformers, kind), given: dict[str, Any] = given) -> nn.Module:
            return kind(kind.config_class(**given))  # type: ignore[no-any-return]

        yield Case(name=f"transformers/{name}", build=build, shape=shape, called=_logits)


def _logits(network: nn.Module, x: Tensor) -> Tensor:
    """What a network of transformers says, without the record around it."""
    found = network(x)
    return found.logits if hasattr(found, "logits") else found.last_hidden_state  # type: ignore[no-any-return]
