"""The torch-exported models of the benchmark: real architectures, random weights.

`python scripts/bench_models.py FOLDER` writes whichever of them are missing; each is exported by
`torch.onnx.export(dynamo=True)` twice, as it comes out of the exporter (`optimize=False`) and
after the exporter's own optimisation (`-opt`).
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

NAMES = ("resnet18", "mobilenetv2", "vit", "bert")
FILES = tuple(f"{name}{suffix}.onnx" for name in NAMES for suffix in ("", "-opt"))


def architectures() -> Iterator[tuple[str, Callable[[], tuple[Any, tuple[Any, ...], list[str]]]]]:
    """(name, a function that makes the module, its example inputs and their names)."""
    import torch
    import transformers

    class Only(torch.nn.Module):
        """One tensor out of a transformers model."""

        def __init__(self, model: torch.nn.Module, call: Callable[..., torch.Tensor]) -> None:
            super().__init__()
            self.model = model
            self.call = call

        def forward(self, *inputs: torch.Tensor) -> torch.Tensor:
            return self.call(self.model, *inputs)

    def image(config: Any, cls: Any) -> tuple[Any, tuple[Any, ...], list[str]]:
        return Only(cls(config), lambda m, x: m(x).logits), (torch.randn(1, 3, 224, 224),), ["x"]

    def bert() -> tuple[Any, tuple[Any, ...], list[str]]:
        config = transformers.BertConfig(
            hidden_size=128,
            num_hidden_layers=4,
            num_attention_heads=4,
            intermediate_size=512,
            vocab_size=2000,
        )
        model = Only(
            transformers.BertModel(config),
            lambda m, i, a: m(input_ids=i, attention_mask=a).last_hidden_state,
        )
        ids = torch.randint(0, 2000, (1, 32))
        return model, (ids, torch.ones_like(ids)), ["input_ids", "attention_mask"]

    basic = {"layer_type": "basic", "hidden_sizes": [64, 128, 256, 512], "depths": [2, 2, 2, 2]}
    yield (
        "resnet18",
        lambda: image(
            transformers.ResNetConfig(**basic), transformers.ResNetForImageClassification
        ),
    )
    yield (
        "mobilenetv2",
        lambda: image(
            transformers.MobileNetV2Config(), transformers.MobileNetV2ForImageClassification
        ),
    )
    tiny = {"hidden_size": 192, "num_attention_heads": 3, "intermediate_size": 768}
    yield (
        "vit",
        lambda: image(transformers.ViTConfig(**tiny), transformers.ViTForImageClassification),
    )
    yield "bert", bert


def write(folder: Path) -> list[Path]:
    """Export what is missing in `folder`; return the paths of all."""
    paths = [folder / file for file in FILES]
    if all(p.is_file() for p in paths):
        return paths
    import torch

    warnings.filterwarnings("ignore")
    folder.mkdir(parents=True, exist_ok=True)
    for name, make in architectures():
        torch.manual_seed(0)
        module, inputs, names = make()
        module.eval()
        for path, optimize in (
            (folder / f"{name}.onnx", False),
            (folder / f"{name}-opt.onnx", True),
        ):
            program = torch.onnx.export(
                module, inputs, dynamo=True, optimize=optimize, input_names=names, verbose=False
            )
            program.save(path)
    return paths


if __name__ == "__main__":
    for written in write(Path(sys.argv[1])):
        print(written)
