"""Models of the transformers library from small configurations, with random weights.

Each function makes one; `torch_model_inputs` has the `--input` that it is compiled with.
"""

from __future__ import annotations

from typing import Any

import transformers as t
from torch import nn

WIDE = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
}
TOKENS = {"vocab_size": 100, "max_position_embeddings": 64}


def audible(module: nn.Module) -> nn.Module:
    """Weights that let a signal through fifty layers: those of the library are small."""
    for part in module.modules():
        if isinstance(part, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(part.weight)
    return module


def resnet() -> nn.Module:
    shape = {"embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 1], "num_labels": 5}
    return t.ResNetForImageClassification(t.ResNetConfig(layer_type="basic", **shape))


def mobilenet_v2() -> nn.Module:
    config = t.MobileNetV2Config(depth_multiplier=0.35, image_size=64, num_labels=5)
    return audible(t.MobileNetV2ForImageClassification(config))


def convnext() -> nn.Module:
    config = t.ConvNextConfig(hidden_sizes=[8, 16, 24, 32], depths=[1, 1, 1, 1], num_labels=5)
    return t.ConvNextForImageClassification(config)


def vit() -> nn.Module:
    config = t.ViTConfig(image_size=32, patch_size=8, num_labels=5, **WIDE)
    return t.ViTForImageClassification(config)


def swin() -> nn.Module:
    shape = {"image_size": 32, "patch_size": 2, "window_size": 4, "embed_dim": 16}
    config = t.SwinConfig(depths=[2, 2], num_heads=[2, 4], num_labels=5, **shape)
    return t.SwinForImageClassification(config)


def bert() -> nn.Module:
    return t.BertModel(t.BertConfig(**WIDE, **TOKENS))


def distilbert() -> nn.Module:
    config = t.DistilBertConfig(dim=32, n_layers=2, n_heads=2, hidden_dim=64, **TOKENS)
    return t.DistilBertForSequenceClassification(config)


def gpt2() -> nn.Module:
    config = t.GPT2Config(n_embd=32, n_layer=2, n_head=2, vocab_size=100, n_positions=64)
    config.use_cache = False
    return t.GPT2LMHeadModel(config)


def gpt2_with_cache() -> nn.Module:
    """As the library makes it: `past_key_values` is among what it returns."""
    return t.GPT2LMHeadModel(t.GPT2Config(n_embd=32, n_layer=2, n_head=2, vocab_size=100))


def whisper_encoder() -> nn.Module:
    shape = {"d_model": 32, "encoder_layers": 2, "encoder_ffn_dim": 64}
    heads = {f"{side}_attention_heads": 2 for side in ("encoder", "decoder")}
    config = t.WhisperConfig(num_mel_bins=20, max_source_positions=32, **shape, **heads)
    return t.WhisperModel(config).get_encoder()


def t5_encoder() -> nn.Module:
    config = t.T5Config(d_model=32, d_kv=16, d_ff=64, num_layers=2, num_heads=2, vocab_size=100)
    return t.T5EncoderModel(config)


def segformer() -> nn.Module:
    config = t.SegformerConfig(
        hidden_sizes=[8, 16, 24, 32],
        depths=[1, 1, 1, 1],
        num_attention_heads=[1, 2, 2, 4],
        decoder_hidden_size=16,
        num_labels=5,
    )
    return t.SegformerForSemanticSegmentation(config)


def detr() -> nn.Module:
    layers: dict[str, Any] = {f"{side}_layers": 2 for side in ("encoder", "decoder")}
    heads = {f"{side}_attention_heads": 2 for side in ("encoder", "decoder")}
    wide = {f"{side}_ffn_dim": 64 for side in ("encoder", "decoder")}
    backbone = t.ResNetConfig(
        embedding_size=8,
        hidden_sizes=[8, 16],
        depths=[1, 1],
        layer_type="basic",
        out_features=["stage2"],
    )
    config = t.DetrConfig(
        use_timm_backbone=False,
        use_pretrained_backbone=False,
        backbone=None,
        backbone_config=backbone,
        d_model=32,
        num_queries=7,
        num_labels=5,
        **layers,
        **heads,
        **wide,
    )
    return t.DetrForObjectDetection(config)
