"""Mutate models and see that infc says something sensible about each: the engine of the fuzz test.

A *case* is a model and a seed; the same case gives the same bytes. Cases run in forked children,
so that a crash in native code is a finding with its seed instead of the end of the run. What may
come out of a case is a model that loads, or an `InfcError`; anything else is a finding.

    scripts/fuzz --runs 20000 --seed 7
    scripts/fuzz --model control-flow --only 1234 --keep /tmp/case    # one case again, kept
    scripts/fuzz --containers --runs 20000                             # PyTorch's, TensorFlow's
    scripts/fuzz --runs 50 --compile                                   # the whole of `infc compile`
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import faulthandler
import json
import os
import random
import resource
import select
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import container_fuzzing
import onnx
from onnx import TensorProto, helper, numpy_helper

CASE_TIMEOUT_S = 30
EXTRA_BYTES = 6 << 30
BATCH = 100


@dataclass
class Tally:
    """What came of the cases: how many of each outcome, and the findings."""

    outcomes: collections.Counter[str] = field(default_factory=collections.Counter)
    findings: list[str] = field(default_factory=list)
    pass_failures: dict[str, list[str]] = field(default_factory=dict)
    slowest_s: float = 0.0
    slowest: str = ""

    def add(self, case: str, outcome: str, detail: str, seconds: float) -> None:
        self.outcomes[outcome] += 1
        if seconds > self.slowest_s:
            self.slowest_s, self.slowest = seconds, case
        if outcome in ("crash", "hang", "exception"):
            self.findings.append(f"{case}: {outcome}: {detail}")
        if outcome == "E301":
            self.pass_failures.setdefault(detail.partition("\n")[0][:160], []).append(case)


# ---------------------------------------------------------------- models


def small_cnn() -> onnx.ModelProto:
    """Conv, BatchNorm, ReLU, pool, Gemm: a few hundred bytes of weights, so that flips hit it."""
    rng = random.Random(0)

    def weights(name: str, *dims: int) -> TensorProto:
        count = 1
        for d in dims:
            count *= d
        values = [rng.uniform(0.1, 1) for _ in range(count)]
        return helper.make_tensor(name, TensorProto.FLOAT, dims, values)

    shapes = {"w1": (2, 1, 3, 3), "w2": (3, 8), "b2": (3,), **dict.fromkeys("sbmv", (2,))}
    nodes = [
        helper.make_node("Conv", ["x", "w1"], ["c1"], "conv", kernel_shape=[3, 3], pads=[1] * 4),
        helper.make_node("BatchNormalization", ["c1", "s", "b", "m", "v"], ["n1"], "bn"),
        helper.make_node("Relu", ["n1"], ["r1"], "relu"),
        helper.make_node("MaxPool", ["r1"], ["p1"], "pool", kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("Transpose", ["p1"], ["t1"], "to_nhwc", perm=[0, 2, 3, 1]),
        helper.make_node("Transpose", ["t1"], ["t2"], "to_nchw", perm=[0, 3, 1, 2]),
        helper.make_node("Flatten", ["t2"], ["f"], "flatten"),
        helper.make_node("Gemm", ["f", "w2", "b2"], ["g"], "gemm", transB=1),
        helper.make_node("Softmax", ["g"], ["y"], "softmax", axis=1),
    ]
    graph = helper.make_graph(
        nodes,
        "cnn",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 1, 4, 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 3])],
        [weights(name, *dims) for name, dims in shapes.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def control_flow(folder: Path) -> onnx.ModelProto:
    """If, Loop, Scan, a function, shape arithmetic, external data in `folder`."""
    (folder / "weights.bin").write_bytes(bytes(range(64)) * 4)
    float_, int_, bool_ = TensorProto.FLOAT, TensorProto.INT64, TensorProto.BOOL
    info = helper.make_tensor_value_info

    def external(name: str, dims: list[int], offset: int) -> TensorProto:
        tensor = TensorProto(name=name, data_type=float_, dims=dims)
        tensor.data_location = TensorProto.EXTERNAL
        for key, value in (("location", "weights.bin"), ("offset", offset), ("length", 64)):
            tensor.external_data.add(key=key, value=str(value))
        return tensor

    then = helper.make_graph(
        [helper.make_node("Add", ["h", "e1"], ["then_y"], "then_add")],
        "then",
        [],
        [info("then_y", float_, None)],
    )
    otherwise = helper.make_graph(
        [helper.make_node("local", ["h"], ["else_y"], "else_call", domain="my", alpha=0.5)],
        "else",
        [],
        [info("else_y", float_, None)],
    )
    body = helper.make_graph(
        [
            helper.make_node("Mul", ["acc", "e2"], ["acc_out"], "loop_mul"),
            helper.make_node("Identity", ["go"], ["go_out"], "loop_go"),
            helper.make_node("ReduceSum", ["acc_out"], ["seen"], "loop_sum", keepdims=0),
        ],
        "body",
        [info("i", int_, []), info("go", bool_, []), info("acc", float_, [4, 4])],
        [info("go_out", bool_, []), info("acc_out", float_, [4, 4]), info("seen", float_, [])],
    )
    step = helper.make_graph(
        [
            helper.make_node("Add", ["state", "row"], ["state_out"], "scan_add"),
            helper.make_node("Tanh", ["state_out"], ["row_out"], "scan_tanh"),
        ],
        "step",
        [info("state", float_, [4]), info("row", float_, [4])],
        [info("state_out", float_, [4]), info("row_out", float_, [4])],
    )
    nodes = [
        helper.make_node("Shape", ["x"], ["shape"], "shape"),
        helper.make_node("Gather", ["shape", "zero"], ["rows"], "rows"),
        helper.make_node("Unsqueeze", ["rows", "axes"], ["rows1"], "rows1"),
        helper.make_node("Concat", ["rows1", "minus"], ["target"], "target", axis=0),
        helper.make_node("Reshape", ["x", "target"], ["h0"], "reshape"),
        helper.make_node(
            "ConstantOfShape",
            ["shape"],
            ["ones"],
            "ones",
            value=helper.make_tensor("", 1, [1], [1]),
        ),
        helper.make_node("Mul", ["h0", "ones"], ["h1"], "mul"),
        helper.make_node("Expand", ["h1", "four"], ["h2"], "expand"),
        helper.make_node("Tile", ["h2", "once"], ["h"], "tile"),
        helper.make_node("If", ["yes"], ["branch"], "if", then_branch=then, else_branch=otherwise),
        helper.make_node("Loop", ["three", "yes", "branch"], ["l", "sums"], "loop", body=body),
        helper.make_node(
            "Scan", ["z4", "l"], ["last", "all"], "scan", body=step, num_scan_inputs=1
        ),
        helper.make_node("Cast", ["sums"], ["ints"], "cast", to=int_),
        helper.make_node("Range", ["zero0", "three", "one0"], ["r"], "range"),
        helper.make_node("Add", ["ints", "r"], ["counts"], "count"),
        helper.make_node("Slice", ["all", "zero1", "two1"], ["part"], "slice"),
        helper.make_node("Split", ["part"], ["a", "b"], "split", axis=1, num_outputs=2),
        helper.make_node("local", ["a"], ["y"], "call", domain="my", alpha=2.0),
    ]

    def ints(name: str, values: Any) -> TensorProto:
        import numpy as np

        return numpy_helper.from_array(np.array(values, np.int64), name)

    import numpy as np

    graph = helper.make_graph(
        nodes,
        "control",
        [info("x", float_, ["N", 4])],
        [info("y", float_, None), info("b", float_, None), info("counts", int_, None)],
        [
            external("e1", [4, 4], 0),
            external("e2", [4, 4], 64),
            *(ints("zero", 0), ints("zero0", 0), ints("one0", 1), ints("three", 3)),
            *(ints("axes", [0]), ints("minus", [-1]), ints("four", [4, 4]), ints("once", [1, 1])),
            *(ints("zero1", [0]), ints("two1", [2])),
            numpy_helper.from_array(np.array(True), "yes"),
            numpy_helper.from_array(np.zeros(4, np.float32), "z4"),
        ],
    )
    scale = helper.make_node("Constant", [], ["k"], "k")
    reference = scale.attribute.add(name="value_float", type=onnx.AttributeProto.FLOAT)
    reference.ref_attr_name = "alpha"
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("my", 1)]
    local = helper.make_function(
        "my",
        "local",
        ["u"],
        ["o"],
        [scale, helper.make_node("Mul", ["u", "k"], ["o"], "scale")],
        opsets[:1],
        ["alpha"],
    )
    return helper.make_model(graph, functions=[local], opset_imports=opsets, ir_version=9)


ROOT = Path(__file__).resolve().parent.parent
REAL_MODELS = Path(os.environ.get("INFC_MODELS", ROOT.parent / "shared" / "models"))


def real_model() -> bytes:
    """DTLN's first half where the real models are, else SqueezeNet from the onnx wheel."""
    path = REAL_MODELS / "dtln" / "model_1.onnx"
    if not path.exists():
        data = Path(onnx.__file__).parent / "backend" / "test" / "data" / "light"
        path = data / "light_squeezenet.onnx"
    return path.read_bytes()


def write_model(name: str, folder: Path) -> bytes:
    """The bytes of a model to mutate; what else it needs goes to `folder`."""
    if name == "cnn":
        return bytes(small_cnn().SerializeToString())
    if name == "control-flow":
        return bytes(control_flow(folder).SerializeToString())
    if name in container_fuzzing.NAMES:
        return container_fuzzing.seed_of(name, REAL_MODELS)
    return real_model()


def mutated(name: str, data: bytes, seed: int) -> bytes:
    """The file of a case: `data` of the model `name`, mutated."""
    rng = random.Random(f"{name}{seed}")
    if name in container_fuzzing.NAMES:
        return container_fuzzing.mutate(name, data, rng, lambda some: mutate_bytes(some, rng))
    return mutate(data, rng)


MODELS = ("cnn", "control-flow", "real")

# ---------------------------------------------------------------- mutations

NUMBERS = (0, 1, 2, 3, 4, 7, 8, -1, -2, 13, 16, 255, 1 << 16, 2**31 - 1, 2**31, 2**62, 2**63 - 1)
TEXTS = ("", "x", "y", "\0", "../../etc/passwd", "/dev/zero", "\x1b[2J", "a" * 1000, "1e9", "-1")
OPS = (
    *("Add", "Reshape", "Conv", "Identity", "If", "Loop", "Scan", "Resize", "Split", "Concat"),
    *("Expand", "Tile", "ConstantOfShape", "Range", "Gather", "Slice", "Transpose", "LSTM", "Pad"),
    *("Einsum", "TopK", "NonZero", "Shape", "Cast", "Unsqueeze", "Squeeze", "local", "OneHot"),
)


def mutate(data: bytes, rng: random.Random) -> bytes:
    """One to four mutations, of the bytes or of the message that they hold."""
    if rng.random() < 0.35:
        return mutate_bytes(data, rng)
    model = onnx.ModelProto.FromString(data)
    for _ in range(rng.choice((1, 1, 1, 2, 3, 4))):
        messages = list(messages_in(model))
        rng.choice(MESSAGE_MUTATIONS)(rng.choice(messages), messages, rng)
    return bytes(model.SerializeToString())


def mutate_bytes(data: bytes, rng: random.Random) -> bytes:
    """One to sixteen mutations of the bytes."""
    out = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 4, 16))):
        rng.choice(BYTE_MUTATIONS)(out, rng)
    return bytes(out)


def _flip(out: bytearray, rng: random.Random) -> None:
    if out:
        out[rng.randrange(len(out))] ^= 1 << rng.randrange(8)


def _set(out: bytearray, rng: random.Random) -> None:
    if out:
        out[rng.randrange(len(out))] = rng.choice((0, 1, 0x7F, 0x80, 0xFF, 0x0A, 0x12))


def _truncate(out: bytearray, rng: random.Random) -> None:
    del out[rng.randrange(len(out) + 1) :]


def _splice(out: bytearray, rng: random.Random) -> None:
    if not out:
        return
    start = rng.randrange(len(out))
    piece = bytes(out[start : start + rng.choice((1, 4, 16, 64, 300))])
    at = rng.randrange(len(out))
    out[at : at + rng.choice((0, len(piece)))] = piece


def _delete(out: bytearray, rng: random.Random) -> None:
    if out:
        at = rng.randrange(len(out))
        del out[at : at + rng.choice((1, 4, 16, 64))]


BYTE_MUTATIONS = (_flip, _flip, _set, _truncate, _splice, _delete)


def messages_in(message: Any) -> Iterator[Any]:
    yield message
    for descriptor, value in message.ListFields():
        if descriptor.message_type is None:
            continue
        items = value if _repeated(descriptor) else [value]
        for item in value.values() if _is_map(descriptor) else items:
            yield from messages_in(item)


def _is_map(descriptor: Any) -> bool:
    return descriptor.message_type is not None and descriptor.message_type.GetOptions().map_entry


def _repeated(descriptor: Any) -> bool:
    return bool(descriptor.is_repeated)


def _fields(message: Any, rng: random.Random, kind: Callable[[Any], bool]) -> Any:
    found = [d for d, _ in message.ListFields() if kind(d) and not _is_map(d)]
    return rng.choice(found) if found else None


def _drop_field(message: Any, messages: Sequence[Any], rng: random.Random) -> None:
    descriptor = _fields(message, rng, lambda d: True)
    if descriptor is not None:
        message.ClearField(descriptor.name)


def _drop_item(message: Any, messages: Sequence[Any], rng: random.Random) -> None:
    descriptor = _fields(message, rng, _repeated)
    if descriptor is not None:
        items = getattr(message, descriptor.name)
        del items[rng.randrange(len(items))]


def _repeat_item(message: Any, messages: Sequence[Any], rng: random.Random) -> None:
    descriptor = _fields(message, rng, _repeated)
    if descriptor is None:
        return
    items = getattr(message, descriptor.name)
    item = items[rng.randrange(len(items))]
    if descriptor.message_type is None:
        items.append(item)
    else:
        items.add().CopyFrom(type(item).FromString(item.SerializeToString()))


def _is_number(descriptor: Any) -> bool:
    return descriptor.cpp_type in (1, 2, 3, 4, 8)


def _change_number(message: Any, messages: Sequence[Any], rng: random.Random) -> None:
    descriptor = _fields(message, rng, _is_number)
    if descriptor is None:
        return
    with contextlib.suppress(ValueError):  # an enum, or an int32
        if _repeated(descriptor):
            items = getattr(message, descriptor.name)
            items[rng.randrange(len(items))] = rng.choice(NUMBERS)
        else:
            setattr(message, descriptor.name, rng.choice(NUMBERS))


def _is_text(descriptor: Any) -> bool:
    return descriptor.type in (9, 12) and descriptor.name not in ("raw_data", "doc_string")


def _write_text(message: Any, descriptor: Any, text: str, rng: random.Random) -> None:
    value: Any = text.encode() if descriptor.type == 12 else text
    if _repeated(descriptor):
        items = getattr(message, descriptor.name)
        items[rng.randrange(len(items))] = value
    else:
        setattr(message, descriptor.name, value)


def _swap_text(message: Any, messages: Sequence[Any], rng: random.Random) -> None:
    """Give a name the value of some other name of the model."""
    other = rng.choice(messages)
    source, target = _fields(other, rng, _is_text), _fields(message, rng, _is_text)
    if source is None or target is None:
        return
    value = getattr(other, source.name)
    value = rng.choice(list(value)) if _repeated(source) else value
    text = value.decode("utf-8", "replace") if isinstance(value, bytes) else value
    _write_text(message, target, text, rng)


def _change_text(message: Any, messages: Sequence[Any], rng: random.Random) -> None:
    descriptor = _fields(message, rng, _is_text)
    if descriptor is not None:
        _write_text(message, descriptor, rng.choice(TEXTS), rng)


def _change_node(message: Any, messages: Sequence[Any], rng: random.Random) -> None:
    """Another operator, or operands from elsewhere: cycles, type errors, missing captures."""
    nodes = [m for m in messages if isinstance(m, onnx.NodeProto)]
    if not nodes:
        return
    node, other = rng.choice(nodes), rng.choice(nodes)
    if rng.random() < 0.4:
        node.op_type = rng.choice(OPS)
    elif node.input and (other.input or other.output):
        node.input[rng.randrange(len(node.input))] = rng.choice([*other.input, *other.output])


MESSAGE_MUTATIONS = (
    *(_drop_field, _drop_item, _repeat_item, _change_number, _change_number),
    *(_swap_text, _swap_text, _change_text, _change_node, _change_node),
)

# ---------------------------------------------------------------- cases


def run_case(path: Path) -> tuple[str, str]:
    """(outcome, detail) of everything infc does in its own process: "ok", a code, "exception"."""
    from infc import building, frontends, pipeline
    from infc.diagnostics import InfcError
    from infc.frontends.onnx import spec_of
    from infc.request import PassOptions

    try:
        source = frontends.load(path)
        pipeline.run(source.model, PassOptions())
        for value in (*source.model.graph.inputs, *source.model.graph.outputs):
            spec_of(value)
        saved = path.parent / "saved"
        saved.mkdir(exist_ok=True)
        building.save_model(source.model, saved / "model.onnx")
    except InfcError as error:
        [str(d.render()) for d in error.diagnostics]
        return error.diagnostics[0].code, error.diagnostics[0].message
    except BaseException as error:
        frames = traceback.extract_tb(error.__traceback__)
        last = [f"{Path(f.filename).name}:{f.lineno}" for f in frames[-3:]]
        return "exception", f"{type(error).__name__}: {str(error)[:200]} at {' < '.join(last)}"
    return "ok", ""


def compile_case(path: Path) -> tuple[str, str]:
    """(outcome, detail) of `infc compile` in a process of its own."""
    import subprocess

    program = "from infc.cli import main; main()"
    command = [sys.executable, "-c", program, "compile", str(path), "-o", str(path.parent / "out")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if "Traceback" in done.stderr or done.returncode not in (0, 1, 2, 3, 4):
        return "exception", f"exit {done.returncode}: {done.stderr[-400:]}"
    if done.returncode == 0:
        return "ok", ""
    start = done.stderr.find("error[")
    if start < 0:
        return "exception", f"exit {done.returncode} without a diagnostic: {done.stderr[-400:]}"
    return done.stderr[start + 6 : start + 10], done.stderr[start + 12 :].partition("\n")[0]


def fuzz(
    name: str, seeds: Sequence[int], case: Callable[[Path], tuple[str, str]] = run_case
) -> Tally:
    """Run the cases `seeds` of the model `name`."""
    tally = Tally()
    if name in container_fuzzing.NAMES:
        container_fuzzing.seed_of(name, REAL_MODELS)  # once, not in every child
    left = list(seeds)
    while left:
        done = _run_batch(name, left[:BATCH], case, tally)
        left = left[done:]
    return tally


def _run_batch(
    name: str, seeds: Sequence[int], case: Callable[[Path], tuple[str, str]], tally: Tally
) -> int:
    """Run some cases in one child; return how many of them are done, a fatal one included."""
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        os.close(reader)
        _child(name, seeds, case, writer)
    os.close(writer)
    started = finished = 0
    timed_out = False
    with os.fdopen(reader, "rb", buffering=0) as stream:
        pending = b""
        while True:
            if not select.select([stream], [], [], 2 * CASE_TIMEOUT_S)[0]:
                timed_out = True
                break
            block = stream.read(65536)
            if not block:
                break
            *lines, pending = (pending + block).split(b"\n")
            for line in lines:
                row = json.loads(line)
                if row == "start":
                    started += 1
                else:
                    finished += 1
                    tally.add(f"{name} {seeds[started - 1]}", *row)
    with contextlib.suppress(ProcessLookupError):
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    if finished == len(seeds):
        return finished
    how = f"exit {os.waitstatus_to_exitcode(status)}"
    tally.add(f"{name} {seeds[finished]}", "hang" if timed_out else "crash", how, 0.0)
    return finished + 1


def _child(
    name: str, seeds: Sequence[int], case: Callable[[Path], tuple[str, str]], writer: int
) -> None:
    def tell(row: Any) -> None:
        os.write(writer, json.dumps(row).encode() + b"\n")

    try:
        _take_limits()
        signal.signal(signal.SIGALRM, _out_of_time)
        with tempfile.TemporaryDirectory(prefix="infc-fuzz-") as scratch:
            folder = Path(scratch)
            data = write_model(name, folder)
            for seed in seeds:
                tell("start")
                (folder / "model.onnx").write_bytes(mutated(name, data, seed))
                start = time.perf_counter()
                signal.alarm(CASE_TIMEOUT_S)
                outcome, detail = case(folder / "model.onnx")
                signal.alarm(0)
                if "out of time" in detail:
                    outcome = "hang"
                tell([outcome, detail, time.perf_counter() - start])
    finally:
        os._exit(0)


def _out_of_time(*_: object) -> None:
    raise TimeoutError("out of time")


def _take_limits() -> None:
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + EXTRA_BYTES
    resource.setrlimit(resource.RLIMIT_AS, (limit, resource.getrlimit(resource.RLIMIT_AS)[1]))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    faulthandler.disable()
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 2)


def keep(name: str, seed: int, folder: Path) -> Path:
    """Write the model of one case, and the data it needs, into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "model.onnx"
    path.write_bytes(mutated(name, write_model(name, folder), seed))
    return path


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else "")
    parser.add_argument("--runs", type=int, default=2000, help="cases, over all models")
    parser.add_argument("--seed", type=int, default=0, help="the first seed")
    parser.add_argument(
        "--model", choices=(*MODELS, *container_fuzzing.NAMES), help="only this model"
    )
    parser.add_argument("--containers", action="store_true", help="other frameworks' files")
    parser.add_argument("--only", type=int, metavar="SEED", help="one case, in this process")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="with --only: keep its model")
    parser.add_argument("--compile", action="store_true", help="run all of `infc compile`")
    options = parser.parse_args()
    is_container = options.containers or options.model in container_fuzzing.NAMES
    case = container_fuzzing.run_case if is_container else run_case
    case = compile_case if options.compile else case
    if options.only is not None:
        folder = options.keep or Path(tempfile.mkdtemp(prefix="infc-fuzz-"))
        print(*case(keep(options.model or "cnn", options.only, folder)))
        if not options.keep:
            shutil.rmtree(folder)
        return 0
    names = container_fuzzing.NAMES if options.containers else MODELS
    names = (options.model,) if options.model else names
    start, bad = time.perf_counter(), 0
    for name in names:
        count = options.runs // len(names)
        tally = fuzz(name, range(options.seed, options.seed + count), case)
        rows = ", ".join(f"{k} {v}" for k, v in sorted(tally.outcomes.items()))
        print(f"{name}: {count} cases, slowest {tally.slowest_s:.1f} s ({tally.slowest}): {rows}")
        for message, cases in sorted(tally.pass_failures.items()):
            print(f"  pass: {message} ({len(cases)}: {', '.join(cases[:3])})")
        for finding in tally.findings:
            print(f"  {finding}")
        bad += len(tally.findings)
    print(f"{time.perf_counter() - start:.0f} s, {bad} findings")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
