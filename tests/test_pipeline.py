"""The pipeline: its order, its options, its records, and that it is the same in every process."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnx.parser
import onnx_ir as ir
import pytest

from infc import passes, pipeline
from infc.diagnostics import InfcError
from infc.request import PassOptions

GRAPH = """
< ir_version: 9, opset_import: ["" : 18] >
g (float[N,4] x) => (float[N,4] y)
<float[4] w = {1, 2, 3, 4}>
{
  two = Constant <value: tensor = float {2.0}> ()
  v = Mul (w, two)
  a = Identity (x)
  b = Relu (a)
  c = Relu (x)
  d = Add (b, c)
  unused = Neg (d)
  y = Add (d, v)
}
"""


def graph() -> ir.Model:
    return ir.from_proto(onnx.parser.parse_model(GRAPH))


def light_models() -> list[Path]:
    folder = Path(onnx.__file__).parent / "backend" / "test" / "data" / "light"
    return sorted(folder.glob("*shuffle*.onnx")) + sorted(folder.glob("*inception_v2*.onnx"))


def test_orderings_hold() -> None:
    names = passes.pass_names()
    for earlier, later, reason in passes.ORDER:
        assert reason
        assert names.index(earlier) < names.index(later), reason


def test_names_are_unique_and_passes_are_named_as_their_files() -> None:
    names = passes.pass_names()
    assert len(set(names)) == len(names)
    for phase in passes.PIPELINE:
        for spec in phase.passes:
            instance = spec.make()
            assert spec.summary
            if spec.factory.startswith("infc."):
                file = spec.factory.partition(":")[0].rpartition(".")[2]
                assert file.replace("_", "-") == spec.name
                assert type(instance).__name__.lower() == file.replace("_", "")


def test_records_say_what_happened() -> None:
    model = graph()
    records = {r.name: r for r in pipeline.run(model, PassOptions(check_between=True))}
    assert pipeline.node_count(model) == 3
    assert records["eliminate-common-subexpressions"].changes >= 1
    first, last = next(iter(records.values())), list(records.values())[-1]
    assert (first.nodes_before, last.nodes_after) == (8, 3)
    assert "seconds" not in first.to_json(timings=False)
    assert first.to_json(timings=True)["seconds"] >= 0


def test_a_pass_runs_again_only_after_a_change() -> None:
    model = graph()
    pipeline.run(model, PassOptions())
    again = pipeline.run(model, PassOptions())
    assert all(r.runs == 1 and r.changes == 0 for r in again)


def test_disabled_passes_do_not_run() -> None:
    model = graph()
    disabled = frozenset(("remove-unused", "eliminate-common-subexpressions"))
    records = pipeline.run(model, PassOptions(disabled=disabled))
    assert not disabled & {r.name for r in records}
    assert [n.op_type for n in model.graph].count("Relu") == 2


def test_dump_after_writes_the_graph(tmp_path: Path) -> None:
    options = PassOptions(dump_after=frozenset(("fold-constants",)), dump_dir=tmp_path / "dumps")
    pipeline.run(graph(), options)
    (file,) = (tmp_path / "dumps").iterdir()
    assert file.name == "01-fold-constants.onnx"
    onnx.checker.check_model(onnx.load(file), full_check=True)


@pytest.mark.parametrize("field", ["disabled", "dump_after"])
def test_an_unknown_pass_is_refused(field: str) -> None:
    with pytest.raises(InfcError) as caught:
        pipeline.run(graph(), PassOptions(**{field: frozenset(("fold-everything",))}))
    assert caught.value.diagnostics[0].code == "E302"


def test_a_failing_pass_is_one_diagnostic(monkeypatch: pytest.MonkeyPatch) -> None:
    from infc.passes.remove_unused import RemoveUnused

    def fail(self: RemoveUnused, model: ir.Model) -> ir.passes.PassResult:
        raise RuntimeError("out of luck")

    monkeypatch.setattr(RemoveUnused, "call", fail)
    with pytest.raises(InfcError) as caught:
        pipeline.run(graph(), PassOptions())
    (diagnostic,) = caught.value.diagnostics
    assert diagnostic.code == "E301"
    assert "remove-unused" in diagnostic.message
    assert "out of luck" in diagnostic.message
    assert "--disable-pass remove-unused" in str(diagnostic.help)


@pytest.mark.parametrize("path", light_models(), ids=lambda p: p.stem)
def test_every_pass_leaves_a_valid_graph(path: Path) -> None:
    model = ir.load(path)
    names = {v.name for v in model.graph.initializers.values()}
    model.graph.inputs[:] = [v for v in model.graph.inputs if v.name not in names]
    inputs = [(v.name, v.type, v.shape) for v in model.graph.inputs]
    outputs = [(v.name, v.type) for v in model.graph.outputs]
    before = pipeline.node_count(model)
    pipeline.run(model, PassOptions(check_between=True))
    assert pipeline.node_count(model) < before
    assert [(v.name, v.type, v.shape) for v in model.graph.inputs] == inputs
    assert [(v.name, v.type) for v in model.graph.outputs] == outputs


def test_the_result_does_not_depend_on_the_hash_seed(tmp_path: Path) -> None:
    program = (
        "import sys, onnx_ir as ir\n"
        "from infc import pipeline\n"
        "from infc.request import PassOptions\n"
        "model = ir.load(sys.argv[1])\n"
        "names = {v.name for v in model.graph.initializers.values()}\n"
        "model.graph.inputs[:] = [v for v in model.graph.inputs if v.name not in names]\n"
        "pipeline.run(model, PassOptions())\n"
        "ir.save(model, sys.argv[2])\n"
    )
    path = next(p for p in light_models() if "shuffle" in p.stem)
    digests = set()
    for seed in ("1", "2"):
        out = tmp_path / f"{seed}.onnx"
        environment = {**os.environ, "PYTHONHASHSEED": seed}
        subprocess.run([sys.executable, "-c", program, path, out], env=environment, check=True)
        digests.add(hashlib.sha256(out.read_bytes()).hexdigest())
    assert len(digests) == 1


def test_importing_onnx_ir_through_infc_loads_no_sympy() -> None:
    program = (
        "import infc, sys\n"
        "import onnx_ir as ir, onnx_ir.passes.common\n"
        "assert 'sympy' not in sys.modules and 'mpmath' not in sys.modules\n"
        "assert (ir.SymbolicDim('N') + 1).value == 'N + 1'\n"
        "assert str(ir.SymbolicDim('max(a, b)').simplify()) == 'Max(a, b)'\n"
        "import sympy.core\n"
        "import sympy\n"
        "assert ir.SymbolicDim(2 * sympy.Symbol('q')).value == '2*q'\n"
        "assert isinstance(ir.SymbolicDim('N')._expr, sympy.Expr)\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_initializers_of_one_repeated_element_are_written_whole(tmp_path: Path) -> None:
    text = """
    < ir_version: 9, opset_import: ["" : 18] >
    g (float[1,2] x) => (float[1,3] y) <int64[2] s = {2, 3}>
    { w = ConstantOfShape <value: tensor = float[1] {0.5}> (s) y = MatMul (x, w) }
    """
    model = ir.from_proto(onnx.parser.parse_model(text))
    pipeline.run(model, PassOptions(check_between=True))
    ir.save(model, tmp_path / "m.onnx")
    (weights,) = onnx.load(tmp_path / "m.onnx").graph.initializer
    np.testing.assert_array_equal(onnx.numpy_helper.to_array(weights), np.full((2, 3), 0.5, "f"))
