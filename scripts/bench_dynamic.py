"""`scripts/bench dynamic`: int8-dynamic against float32 and the frameworks' own tools.

Size, time and SQNR of a BERT with random weights (width 384, four layers): infc's bundles in their
runtimes, `onnxruntime.quantization.quantize_dynamic` in ONNX Runtime, and
`torch.ao.quantization.quantize_dynamic` in eager torch. One thread; the subjects take turns, and
the least time of each counts, since others on the machine only ever add. SQNR is against float32
in ONNX Runtime.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

WIDTH, LAYERS, TOKENS, WORDS = 384, 4, 64, 1000
TARGETS = ("onnxruntime", "openvino", "torchscript")
Run = Callable[[], np.ndarray]


def bert() -> Any:
    import torch
    import transformers

    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=WORDS,
        hidden_size=WIDTH,
        num_hidden_layers=LAYERS,
        num_attention_heads=WIDTH // 64,
        intermediate_size=4 * WIDTH,
        num_labels=16,
    )
    model = transformers.BertForSequenceClassification(config).eval()
    with torch.no_grad():
        for weights in model.parameters():
            if weights.dim() == 2:
                weights.mul_(2.5)  # as spread as trained ones

    class Logits(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, ids: torch.Tensor) -> torch.Tensor:
            return self.model(ids, return_dict=True).logits  # type: ignore[no-any-return]

    return Logits().eval()


def size_of(paths: list[Path]) -> int:
    return sum(path.stat().st_size for path in paths)


def ours(
    source: Path, target: str, precision: str, folder: Path, feeds: dict[str, np.ndarray]
) -> tuple[Run, int]:
    """The artifact of a bundle in its runtime, and its size in bytes."""
    import infc
    from infc.bundle import open_bundle
    from infc.targets import RunJob, Target, back_end

    out = folder / f"{target}-{precision}"
    infc.compile(source, target, out, name="net", precision=precision, loaders=(), verify=False)
    bundle = open_bundle(out / f"net-{target}")
    built_for = Target.from_json(bundle.manifest["target"])
    names = [tuple(spec.name for spec in specs) for specs in (bundle.outputs, bundle.inputs)]
    call = back_end(target).open(RunJob(bundle.entry, built_for, names[0], names[1], 1))
    files = [bundle.path / name for name in bundle.manifest["artifact"]["files"]]
    return lambda: next(iter(call(feeds).values())), size_of(files)


def of_onnxruntime(source: Path, folder: Path, feeds: dict[str, np.ndarray]) -> tuple[Run, int]:
    import onnx
    import onnxruntime
    from onnxruntime.quantization import QuantType, quantize_dynamic

    bare = onnx.load(source)
    del bare.graph.value_info[:]
    onnx.save(bare, folder / "bare.onnx")
    path = folder / "peer.onnx"
    quantize_dynamic(folder / "bare.onnx", path, per_channel=True, weight_type=QuantType.QInt8)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(path, options, ["CPUExecutionProvider"])
    return lambda: session.run(None, feeds)[0], size_of([path])


def of_torch(model: Any, folder: Path, feeds: dict[str, np.ndarray], *, quantized: bool) -> Any:
    import torch

    if quantized:
        model = torch.ao.quantization.quantize_dynamic(model, {torch.nn.Linear})
    path = folder / f"torch-{quantized}.pth"
    torch.save(model.state_dict(), path)
    ids = torch.from_numpy(feeds["ids"])

    def run() -> np.ndarray:
        with torch.inference_mode():
            found: np.ndarray = model(ids).numpy()
        return found

    return run, size_of([path])


def sqnr_db(exact: np.ndarray, found: np.ndarray) -> float:
    noise = float(((exact.astype(np.float64) - found) ** 2).sum())
    return float("inf") if not noise else 10 * np.log10(float((exact**2).sum()) / noise)


def measure(subjects: dict[str, tuple[Run, int]], rounds: int) -> list[dict[str, Any]]:
    exact = subjects["onnxruntime fp32"][0]()
    least = dict.fromkeys(subjects, float("inf"))
    for _ in range(rounds):
        for name, (run, _) in subjects.items():
            run()
            for _ in range(5):
                start = time.perf_counter()
                run()
                least[name] = min(least[name], 1e3 * (time.perf_counter() - start))
    rows = []
    for name, (run, size) in subjects.items():
        base = f"{name.split()[0]} fp32"
        rows.append(
            {
                "subject": name,
                "bytes": size,
                "of_float_bytes": size / subjects[base][1],
                "min_ms": least[name],
                "of_float_time": least[name] / least[base],
                "sqnr_db": sqnr_db(exact, run()),
            }
        )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(prog="scripts/bench dynamic")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    import torch

    torch.set_num_threads(1)
    model = bert()
    feeds = {"ids": np.random.default_rng(0).integers(0, WORDS, (1, TOKENS))}
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        folder = Path(name)
        source = folder / "bert.onnx"
        torch.onnx.export(
            model,
            (torch.from_numpy(feeds["ids"]),),
            source,
            dynamo=True,
            external_data=False,
            verbose=False,
            input_names=["ids"],
            output_names=["logits"],
        )
        subjects: dict[str, tuple[Run, int]] = {}
        for target in TARGETS:
            for precision in ("fp32", "int8-dynamic"):
                found = ours(source, target, precision, folder, feeds)
                subjects[f"{target} {precision}"] = found
        subjects["onnxruntime quantize_dynamic"] = of_onnxruntime(source, folder, feeds)
        subjects["torch fp32"] = of_torch(model, folder, feeds, quantized=False)
        subjects["torch quantize_dynamic"] = of_torch(model, folder, feeds, quantized=True)
        rows = measure(subjects, arguments.rounds)
    if arguments.json:
        json.dump(rows, sys.stdout, indent=1)
        return
    print(f"{'':34}{'MB':>7}{'of float':>10}{'ms':>8}{'of float':>10}{'SQNR dB':>9}")
    for row in rows:
        print(
            f"{row['subject']:34}{row['bytes'] / 1e6:7.2f}{row['of_float_bytes']:10.2f}"
            f"{row['min_ms']:8.2f}{row['of_float_time']:10.2f}{row['sqnr_db']:9.1f}"
        )


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()
