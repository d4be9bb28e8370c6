"""`scripts/bench memory`: peak memory of `infc optimize` on a large model with external data.

The model has random weights, 2 GB by default, and everything that tempts an optimiser to read
them: transposed weights, convolutions with BatchNormalization, a scaled product, equal shapes.
Reported: peak resident memory above that of the same command on a one-node model, which is what
Python and infc's imports cost. Resident pages of memory-mapped files count.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

LIMIT_BYTES = 500 * 10**6
LAYER_BYTES = 1 << 26
"""A square float32 matrix of 4096 rows."""


def write_model(folder: Path, size_bytes: int) -> Path:
    """`folder/big.onnx` with `size_bytes` of weights in `folder/big.data`."""
    import numpy as np
    import onnx
    from onnx import TensorProto, helper

    rng = np.random.default_rng(0)
    width = 4096
    nodes, weights = [], []
    path = folder / "big.onnx"
    with (folder / "big.data").open("wb") as data:

        def weight(name: str, shape: tuple[int, ...], offset: float = 0.0) -> str:
            array = rng.random(shape, np.float32)
            array -= np.float32(0.5 - offset)
            array *= np.float32(0.02)
            tensor = TensorProto(name=name, data_type=TensorProto.FLOAT, dims=shape)
            tensor.data_location = TensorProto.EXTERNAL
            for key, value in (
                ("location", "big.data"),
                ("offset", data.tell()),
                ("length", array.nbytes),
            ):
                tensor.external_data.add(key=key, value=str(value))
            data.write(array)
            weights.append(tensor)
            return name

        value = "x"
        kinds = ("plain", "transposed", "scaled", "convolution")
        for layer in range(max(1, size_bytes // LAYER_BYTES)):
            kind, name = kinds[layer % len(kinds)], f"layer{layer}"
            new = f"{name}_y"
            if kind == "convolution":
                w = weight(f"{name}_w", (width, width, 1))
                statistics = [weight(f"{name}_{i}", (width,), 1.0) for i in range(4)]
                nodes.append(helper.make_node("Unsqueeze", [value, "two"], [f"{name}_u"]))
                nodes.append(helper.make_node("Conv", [f"{name}_u", w], [f"{name}_c"]))
                nodes.append(
                    helper.make_node(
                        "BatchNormalization", [f"{name}_c", *statistics], [f"{name}_b"]
                    )
                )
                nodes.append(helper.make_node("Squeeze", [f"{name}_b", "two"], [new]))
            else:
                w = weight(f"{name}_w", (width, width))
                if kind == "transposed":
                    nodes.append(helper.make_node("Transpose", [w], [f"{name}_t"], perm=[1, 0]))
                    w = f"{name}_t"
                nodes.append(helper.make_node("MatMul", [value, w], [f"{name}_m"]))
                second = "half" if kind == "scaled" else weight(f"{name}_b", (width,))
                op_type = "Mul" if kind == "scaled" else "Add"
                nodes.append(helper.make_node(op_type, [f"{name}_m", second], [new]))
            value = new
    nodes.append(helper.make_node("Relu", [value], ["y"]))
    weights.append(helper.make_tensor("half", TensorProto.FLOAT, [], [0.5]))
    weights.append(helper.make_tensor("two", TensorProto.INT64, [1], [2]))
    graph = helper.make_graph(
        nodes,
        "big",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", width])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", width])],
        weights,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    path.write_bytes(model.SerializeToString())
    onnx.checker.check_model(path)
    return path


def write_tiny(folder: Path) -> Path:
    """`folder/tiny.onnx`: one Relu."""
    import onnx.parser

    text = '<ir_version: 9, opset_import: ["" : 18]> g (float[N] x) => (float[N] y) { y = Relu(x) }'
    path = folder / "tiny.onnx"
    path.write_bytes(onnx.parser.parse_model(text).SerializeToString())
    return path


def run(model: Path, output: Path) -> tuple[int, float]:
    """(peak resident bytes, seconds) of `infc optimize`."""
    infc = Path(sys.executable).parent / "infc"
    start = time.perf_counter()
    child = subprocess.Popen(
        [infc, "optimize", model, "-o", output, "--no-verify"], stdout=subprocess.DEVNULL
    )
    _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        raise SystemExit(f"infc optimize failed on {model.name} ({child.returncode})")
    return usage.ru_maxrss * 1024, time.perf_counter() - start


def measure(folder: Path, size_bytes: int) -> dict[str, Any]:
    """Make the models in processes of their own (a child's peak starts at its parent's), run."""
    for call in (
        f"write_tiny(Path({str(folder)!r}))",
        f"write_model(Path({str(folder)!r}), {size_bytes})",
    ):
        program = f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
        program += f"from bench_memory import *\n{call}"
        subprocess.run([sys.executable, "-c", program], check=True)
    baseline, _ = run(folder / "tiny.onnx", folder / "tiny-out" / "tiny.onnx")
    peak, seconds = run(folder / "big.onnx", folder / "big-out" / "big.onnx")
    return {
        "weights_bytes": (folder / "big.data").stat().st_size,
        "baseline_bytes": baseline,
        "peak_bytes": peak,
        "above_baseline_bytes": peak - baseline,
        "seconds": seconds,
    }


def main() -> int:
    """Print what was measured; exit 1 where it is above the limit."""
    parser = argparse.ArgumentParser(prog="scripts/bench memory", description=__doc__)
    parser.add_argument("--size-gb", type=float, default=2.0)
    parser.add_argument("--folder", type=Path, help="where the model is made; else a scratch one")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as scratch:
        row = measure(Path(scratch), int(options.size_gb * 1e9))
    if options.json:
        print(json.dumps(row, indent=2))
    else:
        for key, value in row.items():
            unit = "s" if key == "seconds" else "MB"
            print(
                f"{key.removesuffix('_bytes'):16} {value / (1 if unit == 's' else 1e6):8.1f} {unit}"
            )
    return 0 if row["above_baseline_bytes"] < LIMIT_BYTES else 1


if __name__ == "__main__":
    sys.exit(main())
