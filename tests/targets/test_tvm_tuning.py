"""Tuning of TVM's kernels: choices, records, measuring, the search, and builds that use them."""

from __future__ import annotations

import json
import multiprocessing
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from command import infc

from infc.diagnostics import InfcError
from infc.targets.tvm_compiler import cpus
from infc.targets.tvm_compiler.cpus import CPUS
from infc.targets.tvm_compiler.scheduling.choices import Choice, Extents
from infc.targets.tvm_compiler.tuning import records
from infc.targets.tvm_compiler.tuning.measuring import Candidate, MeasuringError, Timing
from infc.targets.tvm_compiler.tuning.records import Database, Record
from infc.targets.tvm_compiler.tuning.space import fits, proposals
from infc.tuning_options import TuningOptions

CPU = CPUS["x86-64-v3"]
COMPILER = "apache-tvm 0.27.0"
KEY, OTHER = "0123456789abcdef", "fedcba9876543210"


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "home"
    monkeypatch.setenv("INFC_HOME", str(folder))
    return folder


@pytest.fixture
def tvm_is_there(need_module: Callable[[str], None], need_tool: Callable[[str], str]) -> None:
    need_module("tvm")
    need_tool("cc")


def record(ratio: float = 0.5, rows: int = 7, tried: Sequence[str] = ("7x32",)) -> Record:
    return Record("conv (1x14x14x96)", Choice(rows, 32), ratio * 1e-3, 1e-3, tuple(tried))


def database(rows: Mapping[str, Record] | None = None) -> Database:
    return replace(records.empty(CPU, COMPILER), records={KEY: record()} if rows is None else rows)


# Choices


def test_a_choice_comes_back_from_json() -> None:
    choice = Choice(7, 32, columns_first=True, unroll=9, inline_pad=True, packed=True)
    assert Choice.from_json(json.loads(json.dumps(choice.to_json()))) == choice
    assert str(choice) == "7x32 columns-first unroll 9 inline-pad packed"
    assert str(Choice(1, 16)) == "1x16"


@pytest.mark.parametrize(
    "change",
    [
        {"rows": 0},
        {"rows": True},
        {"columns": 1 << 40},
        {"unroll": "9"},
        {"packed": 1},
        {"more": 1},
    ],
    ids=str,
)
def test_what_is_no_choice(change: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="choice"):
        Choice.from_json({**Choice(7, 32).to_json(), **change})


EXTENTS = [
    Extents(14, 96, (1, 1, 576), 10**7, tiled=True, padded=False, weight_bytes=1 << 18),
    Extents(56, 144, (3, 3, 1), 10**6, tiled=True, padded=True),
    Extents(112, 32, (3, 3, 3), 10**6, tiled=True, padded=True),
    Extents(1, 1000, (512,), 10**5, tiled=True, padded=False, weight_bytes=1 << 21),
    Extents(40, 6, (64,), 10**5, tiled=True, padded=False),
    Extents(7, 7, (49,), 10**4, tiled=False, padded=False),
    Extents(3, 20, (), 10**3, tiled=False, padded=False),
    Extents(197, 197, (64,), 10**6, tiled=True, padded=False, paddable=True),
]


@pytest.mark.parametrize("extents", EXTENTS, ids=lambda e: f"{e.rows}x{e.columns}")
@pytest.mark.parametrize("name", ["x86-64-v4", "x86-64-v2", "cortex-a72"])
def test_what_is_proposed_fits(extents: Extents, name: str) -> None:
    for best in (Choice(1, 1), *proposals(extents, CPUS[name], Choice(1, 1))):
        found = list(proposals(extents, CPUS[name], best))
        assert all(fits(c, extents) for c in found if c != best)
        assert len(found) < 40
    assert not list(proposals(replace(extents, settled=True), CPUS[name], Choice(1, 1)))


@pytest.mark.parametrize(
    "choice",
    [
        Choice(7, 48),
        Choice(64, 32),
        Choice(14, 96),
        Choice(7, 32, unroll=7),
        Choice(7, 32, inline_pad=True),
    ],
    ids=str,
)
def test_what_does_not_fit(choice: Choice) -> None:
    extents = Extents(14, 96 if choice.columns != 48 else 64, (576,), 1, tiled=True, padded=False)
    assert fits(Choice(7, 32), extents)
    assert not fits(choice, extents)
    assert not fits(Choice(7, 32, packed=True), extents)
    assert fits(Choice(3, 64), replace(extents, paddable=True))
    assert not fits(Choice(7, 32), replace(extents, settled=True))


# Records


def test_a_database_comes_back_from_its_file(tmp_path: Path) -> None:
    path = tmp_path / "a" / "db.json"
    records.write(database(), path)
    assert records.read(path) == database()
    assert [p.name for p in path.parent.iterdir()] == ["db.json"]


def wrong(path: Sequence[str], value: Any) -> str:
    document = database().to_json()
    at: Any = document
    for word in path[:-1]:
        at = at[word]
    at[path[-1]] = value
    return json.dumps(document)


ROW = ("records", KEY)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "Expecting value"),
        (json.dumps(database().to_json())[:-40], "line 1 column"),
        ("[]", "does not say that it is one"),
        ("[" * 100_000, "nested too deeply"),
        (wrong(["format"], "tophub"), "does not say that it is one"),
        (wrong(["version"], 2), "it is of version 2, and 1 is known here"),
        (wrong(["cpu"], {}), "features"),
        (wrong(["cpu", "mcpu"], 7), "`cpu` is no processor"),
        (wrong(["records"], {"../../x": {}}), "is no kernel's key"),
        (wrong([*ROW, "seconds"], -1), "`seconds` is no time"),
        (wrong([*ROW, "seconds"], float("nan")), "`seconds` is no time"),
        (wrong([*ROW, "tried"], ["x"] * 10_000), "`tried` is no list"),
        (wrong([*ROW, "choice", "rows"], 10**9), "`rows` of a choice is 1000000000"),
        (wrong([*ROW, "choice"], None), "a choice has other fields"),
        (wrong([*ROW, "code"], "import os"), "a record has other fields"),
    ],
)
def test_a_file_that_is_no_database(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "db.json"
    path.write_text(text)
    with pytest.raises(InfcError) as caught:
        records.read(path)
    (diagnostic,) = caught.value.diagnostics
    assert diagnostic.code == "E209"
    assert said in diagnostic.message


def test_a_database_of_another_processor_or_release(tmp_path: Path) -> None:
    path = tmp_path / "db.json"
    records.write(database(), path)
    before = path.read_bytes()
    for wanted, said in (
        (records.empty(CPUS["cortex-a72"], COMPILER), "and this is for cortex-a72"),
        (records.empty(CPU, "apache-tvm 0.28.0"), "and here is apache-tvm 0.28.0"),
    ):
        with pytest.raises(InfcError, match=said) as caught:
            records.update(path, wanted, {OTHER: record()})
        assert caught.value.diagnostics[0].code == "E209"
    assert path.read_bytes() == before


def test_the_number_of_cores_is_no_part_of_a_processor() -> None:
    assert records.file_for(replace(CPU, cores=64)) == records.file_for(CPU)
    names = {records.file_for(cpu).name for cpu in CPUS.values()}
    assert len(names) == len({(c.mcpu, c.triple, c.features) for c in CPUS.values()})


def _write(path: Path, first: int) -> None:
    for i in range(first, first + 10):
        records.update(path, records.empty(CPU, COMPILER), {f"{i:016x}": record()})


def test_writers_at_the_same_time_lose_nothing(tmp_path: Path) -> None:
    path = tmp_path / "db.json"
    context = multiprocessing.get_context("fork")
    writers = [context.Process(target=_write, args=(path, 10 * i)) for i in range(4)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(60)
    assert set(records.read(path).records) == {f"{i:016x}" for i in range(40)}


def test_the_better_record_is_kept_whichever_comes_first() -> None:
    good, bad = record(0.5, tried=["7x32", "a"]), record(0.9, rows=4, tried=["7x32", "b"])
    for one, other in ((good, bad), (bad, good)):
        merged = records.merged(database({KEY: one}), {KEY: other, OTHER: bad})
        assert merged.records[KEY] == replace(good, tried=("7x32", "a", "b"))
        assert merged.records[OTHER] == bad
    # Times are of different days: a short one with no gain is not the better one.
    slow = Record("k", Choice(4, 32), 1e-6, 1e-6)
    assert records.better(slow, good).choice == good.choice


def test_the_digest_is_of_the_choices_alone() -> None:
    again = database({KEY: replace(record(), seconds=1.0, rule_seconds=3.0, tried=())})
    assert again.digest == database().digest
    assert database({KEY: record(rows=4)}).digest != database().digest


# Measuring


def scheduled(body: Callable[[Any, Any], Any], size: int = 64) -> Candidate:
    """A candidate y[i] = body(x, i) of `size` float32."""
    from tvm import te

    from infc.targets.tvm_compiler.tuning.search import candidate_of

    x = te.placeholder((size,), "float32", name="x")
    y = te.compute((size,), lambda i: body(x, i), name="y")
    return candidate_of(te.create_prim_func([x, y]))


def test_a_candidate_that_crashes_or_hangs_is_the_only_one_lost(tvm_is_there: None) -> None:
    from tvm import te, tirx

    from infc.targets.tvm_compiler.tuning.host_measuring import HostMeasurer

    good = scheduled(lambda x, i: x[i] + tirx.const(1, "float32"))
    crashing = scheduled(lambda x, i: x[i * 0 + tirx.const(1 << 28, "int32") * 7 + i])
    rounds = te.reduce_axis((0, 1 << 30), name="r")
    hanging = scheduled(lambda x, i: te.sum(tirx.sin(x[i] * rounds), axis=rounds))
    refused = replace(good, arguments=good.arguments[:1])
    measurer = HostMeasurer(cpus.host(), timeout_s=4)
    found = measurer.measure([good, crashing, refused, good, hanging])
    assert [t.seconds is not None for t in found] == [True, False, False, True, False]
    assert found[1].reason == "it crashed"
    assert found[4].reason == "stopped after 4 s"
    assert found[2].reason


class Stopwatch:
    """Measures nothing, and gives each candidate the time that `time_of` has for its choice."""

    places = 1

    def __init__(self, time_of: Callable[[Candidate], float | None], rounds: int = 10**9) -> None:
        self.time_of, self.left = time_of, rounds
        self.measured = 0

    def measure(self, candidates: Sequence[Candidate]) -> list[Timing]:
        if not self.left:
            raise MeasuringError("the device is gone")
        self.left -= 1
        self.measured += len(candidates)
        return [Timing(self.time_of(c)) for c in candidates]

    def close(self) -> None:
        self.left = 0


CONV = """<ir_version: 8, opset_import: ["" : 17]>
agraph (float[1, 16, 14, 14] x) => (float[1, 96, 14, 14] z) <float[96, 16, 3, 3] w> {
    y = Conv<kernel_shape = [3, 3], pads = [1, 1, 1, 1]>(x, w)
    z = Relu(y)
}
"""


def conv_model(size: int = 14, out: int = 96, inner: int = 16, seed: int = 1) -> onnx.ModelProto:
    text = CONV.replace(" <float[96, 16, 3, 3] w>", "").replace("14, 14", f"{size}, {size}")
    text = text.replace("96,", f"{out},").replace("1, 16,", f"1, {inner},")
    model = onnx.parser.parse_model(text)
    w = np.random.default_rng(seed).standard_normal((out, inner, 3, 3)).astype(np.float32)
    model.graph.initializer.append(onnx.numpy_helper.from_array(w * 0.1, "w"))
    return model


def fused(model: onnx.ModelProto) -> Any:
    import onnx_ir as ir

    from infc.targets import Target, tvm
    from infc.targets.tvm_compiler.importing.graph import import_model
    from infc.targets.tvm_compiler.scheduling.kernels import fuse

    lowered = ir.from_proto(model)
    tvm.legalize(lowered, Target("tvm", "tvm", ""))
    return fuse(import_model(ir.to_proto(lowered), CPU), CPU)


def conv_key(model: onnx.ModelProto) -> str:
    (key,) = (k.key for k in fused(model).kernels() if "conv" in k.name)
    return key


def test_a_key_is_of_what_is_computed_alone(tvm_is_there: None) -> None:
    key = conv_key(conv_model())
    assert records.KEY.fullmatch(key)
    assert key == conv_key(conv_model(seed=2))
    assert len({key, conv_key(conv_model(size=28)), conv_key(conv_model(out=64))}) == 3


def is_packed(candidate: Candidate) -> bool:
    return any(len(argument.shape) == 5 for argument in candidate.arguments)


def test_a_search_finds_the_best_and_goes_on_where_it_was(tvm_is_there: None) -> None:
    from infc.targets.tvm_compiler.tuning.search import Budget, Tuner

    model = conv_model()
    watch = Stopwatch(lambda c: 2e-3 if is_packed(c) else 1e-3)
    known: dict[str, Record] = {}
    trials: list[int] = []

    def tuner() -> Tuner:
        return Tuner(
            fused(model), CPU, watch, known, known.update, lambda e: trials.append(e.trials)
        )

    assert tuner().run(Budget(trials=7)).trials == 7
    assert trials == sorted(trials)
    assert trials[-1] == 7
    halfway = dict(known)
    last = tuner().run(Budget())
    assert last.left_s is None
    assert last.measured == last.kernels == len(known)
    found = known[conv_key(model)]
    assert not found.choice.packed  # which by rule it is
    assert found.ratio == 0.5
    assert all(set(known[key].tried) >= set(row.tried) for key, row in halfway.items())
    before = watch.measured
    assert tuner().run(Budget(trials=50)).trials == 0
    assert watch.measured == before


def test_a_round_is_cut_to_the_trials_that_are_left(tvm_is_there: None) -> None:
    from infc.targets.tvm_compiler.tuning.search import Budget, Tuner

    known: dict[str, Record] = {}
    watch = Stopwatch(lambda c: 1e-3)
    tuner = Tuner(fused(conv_model()), CPU, watch, known, known.update, lambda e: None)
    assert tuner.run(Budget(trials=2)).trials == 2
    (row,) = known.values()
    assert len(row.tried) == watch.measured == 3  # the rule's is no trial


def test_what_was_found_before_a_device_went_is_kept(tvm_is_there: None) -> None:
    from infc.targets.tvm_compiler.tuning.search import Budget, Tuner

    known: dict[str, Record] = {}
    watch = Stopwatch(lambda c: 1e-3, rounds=1)
    tuner = Tuner(fused(conv_model()), CPU, watch, known, known.update, lambda e: None)
    with pytest.raises(MeasuringError, match="the device is gone"):
        tuner.run(Budget(trials=100))
    assert len(known) == 1


def test_kernels_that_do_not_run_are_left_by_rule(tvm_is_there: None) -> None:
    from infc.targets.tvm_compiler.tuning.search import Budget, Tuner

    known: dict[str, Record] = {}
    watch = Stopwatch(lambda c: None)
    tuner = Tuner(fused(conv_model()), CPU, watch, known, known.update, lambda e: None)
    assert tuner.run(Budget(trials=100)).kernels == 0
    assert known == {}


# Kernels


CHOICES = [
    Choice(7, 32),
    Choice(5, 48, columns_first=True, packed=True, inline_pad=True),
    Choice(4, 16, unroll=8),
    Choice(14, 16, inline_pad=True, unroll=2),
    Choice(2, 96, packed=True, columns_first=True),
]


def lowered(model: onnx.ModelProto, folder: Path) -> Path:
    import onnx_ir as ir

    from infc.targets import Target, tvm

    folder.mkdir(parents=True, exist_ok=True)
    graph = ir.from_proto(model)
    tvm.legalize(graph, Target("tvm", "tvm", ""))
    ir.save(graph, folder / "in.onnx")
    return folder / "in.onnx"


def built(model: onnx.ModelProto, folder: Path, tuning: TuningOptions) -> tuple[Path, Any]:
    """The library, as a worker makes it, and what is noted of its records."""
    from infc.signature import TensorSpec
    from infc.targets import BuildJob, Target, tvm

    sides = [
        tuple(
            TensorSpec(v.name, "float32", tuple(d.dim_value for d in v.type.tensor_type.shape.dim))
            for v in values
        )
        for values in (model.graph.input, model.graph.output)
    ]
    path = lowered(model, folder)
    (folder / "model").mkdir()
    job = BuildJob(path, folder / "model", Target("tvm", "tvm", ""), *sides, tuning=tuning)
    made = tvm.build(job)
    return folder / "model" / made.entry, made.notes["tuning"]


def own_database(rows: Mapping[str, Record]) -> Database:
    return replace(records.empty(cpus.host(), records.compiler_name()), records=rows)


def test_every_choice_gives_the_same_answers(
    tvm_is_there: None, tmp_path: Path, home: Path
) -> None:
    """One convolution as each of `CHOICES` has it; 5 and 4 rows do not divide its 14."""
    import onnxruntime

    from infc.targets import RunJob, Target, tvm

    model = conv_model()
    x = np.random.default_rng(0).standard_normal((1, 16, 14, 14)).astype(np.float32)
    session = onnxruntime.InferenceSession(model.SerializeToString())
    (right,) = session.run(None, {"x": x})
    key, own = conv_key(model), records.file_for(cpus.host())
    libraries = set()
    for i, choice in enumerate(CHOICES):
        records.write(own_database({key: Record("c", choice, 1.0, 2.0)}), own)
        entry, notes = built(model, tmp_path / str(i), TuningOptions())
        assert notes["records"] == 1
        libraries.add(entry.read_bytes())
        run = tvm.open(RunJob(entry, Target("tvm", "tvm", ""), ("z",), ("x",), threads=2))
        np.testing.assert_allclose(
            run({"x": x})["z"], right, rtol=0, atol=3e-6 * np.abs(right).max()
        )
    assert len(libraries) == len(CHOICES)


def test_the_same_records_give_the_same_bytes_wherever_they_lie(
    tvm_is_there: None, tmp_path: Path, home: Path
) -> None:
    model = conv_model()
    row = Record("c", Choice(4, 48), 1.0, 2.0)
    file = tmp_path / "named.json"
    records.write(own_database({conv_key(model): row, OTHER: record()}), file)
    named, notes = built(model, tmp_path / "a", TuningOptions(databases=(file,)))
    records.write(
        own_database({conv_key(model): replace(row, seconds=0.5)}), records.file_for(cpus.host())
    )
    kept, again = built(model, tmp_path / "b", TuningOptions())
    assert named.read_bytes() == kept.read_bytes()
    assert notes == again == {"kernels": 3, "records": 1, "records_digest": notes["records_digest"]}
    off, none = built(model, tmp_path / "c", TuningOptions(off=True))
    assert none == {"kernels": 3, "records": 0}
    assert off.read_bytes() != kept.read_bytes()


def test_a_record_that_does_not_fit_is_not_used(
    tvm_is_there: None, tmp_path: Path, home: Path
) -> None:
    """Somebody else's file may say anything: a tile of 64 x 1024 would be megabytes of code."""
    model = conv_model()
    row = Record("c", Choice(64, 96, unroll=64), 1.0, 2.0)
    records.write(own_database({conv_key(model): row}), records.file_for(cpus.host()))
    _, notes = built(model, tmp_path / "a", TuningOptions())
    assert notes == {"kernels": 3, "records": 0}


PRODUCTS = """<ir_version: 8, opset_import: ["" : 17]>
agraph (float[2, 19, 24] a, float[2, 24, 37] b, float[2, 37, 24] c) => (
        float[2, 19, 37] y, float[2, 19, 24] z, float[2, 19, 1] m) {
    p = MatMul(a, b)
    y = Softmax<axis = -1>(p)
    z = MatMul(y, c)
    m = ReduceMean<axes = [-1]>(z)
}
"""


def test_columns_that_no_vector_divides(tvm_is_there: None, tmp_path: Path, home: Path) -> None:
    """As a vision transformer's 197 tokens: the product is computed for 48 and cropped."""
    import onnxruntime

    from infc.targets import RunJob, Target, tvm

    model = onnx.parser.parse_model(PRODUCTS)
    (wide,) = (
        k.rule(CPUS["x86-64-v4"]) for k in fused(model).kernels() if k.extents().columns == 37
    )
    assert 37 % wide.columns
    rng = np.random.default_rng(0)
    feeds = {
        v.name: rng.standard_normal([d.dim_value for d in v.type.tensor_type.shape.dim]).astype(
            np.float32
        )
        for v in model.graph.input
    }
    session = onnxruntime.InferenceSession(model.SerializeToString())
    expected = session.run(None, feeds)
    entry, _ = built(model, tmp_path, TuningOptions())
    names = ("y", "z", "m"), ("a", "b", "c")
    answers = tvm.open(RunJob(entry, Target("tvm", "tvm", ""), *names))(feeds)
    for name, right in zip(names[0], expected, strict=True):
        np.testing.assert_allclose(answers[name], right, rtol=0, atol=1e-5)


SPECIAL = [0.0, -0.0, np.inf, -np.inf, np.nan, 88.7, 89.0, -86.0, -104.0, 1e-30, 4.0, -9.0]


@pytest.mark.parametrize("name", ["exp", "erf", "tanh", "sigmoid"])
def test_elementary_functions(tvm_is_there: None, name: str) -> None:
    import math

    import tvm
    from tvm import te, tirx

    from infc.targets.tvm_compiler.scheduling.schedules import schedule

    values = np.concatenate([np.linspace(-20, 20, 4084), SPECIAL]).astype(np.float32)
    x = te.placeholder(values.shape, "float32")
    y = te.compute(values.shape, lambda i: getattr(tirx, name)(x[i]))
    func = schedule(te.create_prim_func([x, y]), cpus.host())
    assert f"T.{name}(" not in func.script()
    module = tvm.tirx.build(tvm.IRModule({"main": func}), target=cpus.host().target())
    answers = tvm.runtime.tensor(np.empty_like(values))
    module["main"](tvm.runtime.tensor(values), answers)
    exact = {
        "exp": np.exp,
        "erf": np.vectorize(math.erf),
        "tanh": np.tanh,
        "sigmoid": lambda v: 1 / (1 + np.exp(-v)),
    }[name]
    with np.errstate(all="ignore"):
        right = exact(values.astype(np.float64)).astype(np.float32)
    # Four units in the last place; what is below the least normal number may be 0.
    np.testing.assert_allclose(answers.numpy(), right, rtol=5e-7, atol=2e-38)


# Builds


def compiled(model: Path, output: Path, *words: object) -> tuple[Any, dict[str, Any]]:
    done = infc(
        *("compile", model, "-t", "tvm", "-o", output, "--no-verify", "--loader", "none"),
        *("--json", *words),
    )
    assert done.status == 0, done.err
    (row,) = done.document["results"]
    manifest = json.loads((Path(row["bundle"]) / "manifest.json").read_text())
    return done.document, manifest


def test_a_model_is_tuned_and_built_with_what_was_found(
    tvm_is_there: None, tmp_path: Path, home: Path
) -> None:
    path, other = tmp_path / "m.onnx", tmp_path / "other.onnx"
    onnx.save(conv_model(), path)
    onnx.save(conv_model(size=9, out=24), other)
    done = infc("tune", path, "--trials", 12, "--json")
    assert done.status == 0, done.err
    (row,) = done.document["results"]
    assert row["trials"] == 12
    assert 0 < row["measured"] <= row["kernels"]
    assert 0 < row["best_ms"] <= row["rule_ms"] * 1.001

    document, manifest = compiled(path, tmp_path / "a")
    (result,) = document["results"]
    assert result["measured"]["beside"]["peer"] == "onnxruntime"
    assert result["measured"]["beside"]["ratio"] > 0
    used = manifest["artifact"]["notes"]["tuning"]
    assert 0 < used["records"] <= used["kernels"]
    assert len(used["records_digest"]) == 16
    exported = tmp_path / "db.json"
    done = infc("tune", "export", row["database"], "-o", exported, "--json")
    assert done.document["records"] == row["records"]
    assert all(not r.tried for r in records.read(exported).records.values())
    Path(row["database"]).unlink()

    document, _ = compiled(other, tmp_path / "e", "--tuning-database", exported)
    (said,) = document["diagnostics"]
    assert (said["code"], said["severity"]) == ("E210", "warning")


def test_what_is_quantised_is_tuned_and_the_build_after_it_is_told(
    tvm_is_there: None, tmp_path: Path, home: Path
) -> None:
    path = tmp_path / "a model.onnx"
    onnx.save(conv_model(), path)
    words = [str(path), "--precision", "int8", "--calibration", "random"]
    words += ["--calibration-samples", "2", "--method", "minmax"]
    done = infc("tune", *words, "--trials", 1)
    assert done.status == 0, done.err
    (line,) = [line for line in done.out.splitlines() if line.split()[0] == "next"]
    program, verb, *given = shlex.split(line.split(maxsplit=1)[1])
    assert (program, verb, given[-2:]) == ("infc", "compile", ["-t", "tvm"])
    pairs = [*zip(words[1::2], words[2::2], strict=True)]
    assert given[0] == str(path)
    assert sorted(zip(given[1:-2:2], given[2:-2:2], strict=True)) == sorted(pairs)


def test_a_tuning_that_is_killed_goes_on_where_it_was(
    tvm_is_there: None, tmp_path: Path, home: Path
) -> None:
    from infc.targets import Target
    from infc.targets.tvm_compiler.tuning import job as tuning_job

    path = tmp_path / "m.onnx"
    onnx.save(conv_model(), path)
    command = [sys.executable, "-m", "infc", "tune", str(path), "--minutes", "5"]
    temporary = tmp_path / "temporary"  # what is killed leaves files there
    temporary.mkdir()
    process = subprocess.Popen(
        command,
        env={**os.environ, "TMPDIR": str(temporary)},
        start_new_session=True,
        stderr=subprocess.DEVNULL,
    )
    file = records.file_for(cpus.host())
    deadline = time.monotonic() + 120
    while not file.exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    before = records.read(file).records
    assert before
    found = tuning_job.tune(
        lowered(conv_model(), tmp_path / "again"),
        Target("tvm", "tvm", ""),
        cpus.host(),
        TuningOptions(trials=3),
        lambda **told: None,
    )
    assert found["trials"] == 3
    after = records.read(file).records
    assert set(after) >= set(before)
    tried = [sum(len(r.tried) for r in rows.values()) for rows in (before, after)]
    assert tried[1] >= tried[0] + 3


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["compile", "m.onnx", "-t", "tvm", "--tune", "lots"], "E110", "`--tune lots`"),
        (["compile", "m.onnx", "-t", "tvm", "--tune", "trials=0"], "E110", "`--tune trials=0`"),
        (["compile", "m.onnx", "-t", "cpu", "--tune", "trials=3"], "E110", "`cpu` has no kernels"),
        (
            ["compile", "m.onnx", "-t", "tvm", "--tune", "off", "--tuning-database", "d.json"],
            "E110",
            "uses no record",
        ),
        (["tune", "m.onnx", "-t", "openvino"], "E110", "`openvino` has no kernels"),
        (["tune", "m.onnx", "--trials", "-1"], "E110", "`--trials -1`"),
        (["tune", "m.onnx", "--minutes", "nan"], "E110", "`--minutes nan`"),
        (["tune", "show"], "E209", "there is no tuning database"),
        (["tune", "show", "tvm"], "E209", "there is no tuning database"),
        (["tune", "prune", "m.onnx"], "E209", "cannot be read"),
        (["tune", "merge", "m.onnx", "m.onnx", "-o", "o.json"], "E209", "cannot be read"),
        (["tune", "export", "cpu", "-o", "o.json"], "E110", "`cpu` has no kernels"),
        (["tune", "show", "m.onnx", "-X", "cpu=host"], "E110", "`-X` is for a target"),
    ],
    ids=lambda v: " ".join(v) if isinstance(v, list) else "",
)
def test_what_makes_no_sense(
    tmp_path: Path,
    home: Path,
    monkeypatch: pytest.MonkeyPatch,
    words: list[str],
    code: str,
    said: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    onnx.save(conv_model(), "m.onnx")
    done = infc(*words, "--json")
    assert done.status != 0
    (diagnostic,) = done.document["diagnostics"]
    assert diagnostic["code"] == code
    assert said in diagnostic["message"]
    assert not (tmp_path / "o.json").exists()


def test_a_processor_that_is_not_here_is_not_tuned_for(tvm_is_there: None) -> None:
    from infc.targets import Target
    from infc.targets.tvm_compiler.tuning.job import measurer_for

    with pytest.raises(InfcError, match="cannot be timed on this machine") as caught:
        measurer_for(Target("pi", "tvm", ""), CPUS["cortex-a72"])
    (diagnostic,) = caught.value.diagnostics
    assert diagnostic.code == "E205"
    assert "infc tune export" in diagnostic.help


def test_databases_are_shown_merged_and_pruned(tmp_path: Path, home: Path) -> None:
    one, two, whole = (tmp_path / f"{name}.json" for name in ("one", "two", "whole"))
    records.write(database(), one)
    records.write(database({OTHER: record(1.0)}), two)
    done = infc("tune", "merge", one, two, "-o", whole, "--json")
    assert done.document["records"] == 2
    assert set(records.read(whole).records) == {KEY, OTHER}
    done = infc("tune", "show", whole)
    assert "0.50x" in done.out
    assert "conv (1x14x14x96)" in done.out
    assert done.out.index("0.50x") < done.out.index("1.00x")
    done = infc("tune", "prune", whole, "--gain", 3, "--json")
    assert done.document["records"] == 1
    assert records.read(whole).records == {KEY: replace(record(), tried=())}
    records.write(replace(database(), cpu=records.identity(CPUS["cortex-a53"])), two)
    done = infc("tune", "merge", one, two, "-o", whole, "--json")
    assert done.document["diagnostics"][0]["code"] == "E209"


def test_options_come_back_from_json(tmp_path: Path) -> None:
    options = TuningOptions(3, 0.5, databases=(tmp_path / "a.json",))
    assert TuningOptions.from_json(options.to_json()) == options
    assert TuningOptions.from_json({}) == TuningOptions()
