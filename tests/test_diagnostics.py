"""Every code: its golden text, and a way in which it really comes about.

`INFC_BLESS=1 pytest` rewrites the golden files; a code never changes meaning, so review the diff.
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from command import SMALL, Done, infc, write_model
from conftest import ROOT
from onnx_ir.passes import InPlacePass, PassResult

from infc import bundle, driver, pipeline
from infc.diagnostics import CODES, Diagnostic, ExitCode, InfcError, Severity, combined_exit_code
from infc.passes import PassSpec, Phase

GOLDEN = Path(__file__).parent / "golden" / "diagnostics"
CLASSES = {
    "E1": "frontend",
    "E2": "target support",
    "E3": "pass",
    "E4": "quantisation",
    "E5": "toolchain",
    "E6": "verification",
    "E7": "bundle and loader",
}


@pytest.mark.parametrize("code", CODES)
def test_golden_text(code: str) -> None:
    row = CODES[code]
    example = Diagnostic(
        code,
        row.title,
        where="model.onnx:main/conv_3 (Conv-11)",
        help="what to do",
        notes=("the last lines of its log:\nfirst\nsecond",),
    )
    done = infc("explain", code)
    assert done.status == 0
    text = f"{example.render()}\n\n$ infc explain {code}\n{done.out}"
    file = GOLDEN / f"{code}.txt"
    if os.environ.get("INFC_BLESS") == "1":
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    assert file.is_file(), "a new code: run INFC_BLESS=1 pytest tests/test_diagnostics.py"
    assert text == file.read_text()


def test_no_golden_text_without_its_code() -> None:
    assert {file.stem for file in GOLDEN.iterdir()} == set(CODES)


@pytest.mark.parametrize("code", CODES)
def test_the_table_is_in_style(code: str) -> None:
    row = CODES[code]
    assert code[:2] in CLASSES
    assert row.title[0].islower() or row.title[0] in "`I", "a title goes on after the code"
    assert not row.title.endswith(".")
    assert row.explanation.endswith(".")
    assert len(row.explanation) > 80, "a paragraph, not the title again"


def test_colour_changes_nothing_but_the_colour() -> None:
    row = Diagnostic("E203", "message\nmore", "a:b", "help\nmore", ("note\nmore",))
    painted = row.render(color=True)
    assert "\x1b[1;31merror[E203]\x1b[0m" in painted
    assert re.sub(r"\x1b\[[\d;]*m", "", painted) == row.render()


def test_names_from_a_model_cannot_steer_the_terminal() -> None:
    text = Diagnostic("E203", "node \x1b[2J\x07", where="m:\r\x9b1m", notes=("\x00",)).render()
    assert text.isprintable() or all(c.isprintable() or c == "\n" for c in text)


def test_severity_is_part_of_the_text() -> None:
    row = Diagnostic("E109", "what", severity=Severity.NOTE)
    assert row.render() == "note[E109]: what"


def test_a_code_that_is_not_in_the_table_is_refused() -> None:
    with pytest.raises(KeyError, match="E999"):
        Diagnostic("E999", "what")


@pytest.mark.parametrize(
    ("codes", "combined"),
    [
        ([], 0),
        ([0, 0], 0),
        ([0, 3], 3),
        ([4, 4], 4),
        ([3, 4], 1),
        ([1, 0, 3], 1),
    ],
)
def test_exit_code_of_several_targets(codes: list[int], combined: int) -> None:
    assert combined_exit_code([ExitCode(c) for c in codes]) == combined


Trigger = Callable[[Path, pytest.MonkeyPatch], Done]


def compile_text(text: str, *words: str) -> Trigger:
    """Compile a model that is given in ONNX's textual form."""

    def trigger(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Done:
        model = write_model(folder / "m.onnx", text)
        return infc("compile", model, "-o", folder / "out", "--loader", "none", *words)

    return trigger


def compile_bytes(data: bytes | None) -> Trigger:
    def trigger(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Done:
        if data is not None:
            (folder / "m.onnx").write_bytes(data)
        return infc("compile", folder / "m.onnx", "-o", folder / "out")

    return trigger


def missing_data(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Done:
    model = onnx.parser.parse_model(SMALL)
    for row in model.graph.initializer:  # only raw data can be external
        row.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(row), row.name))
    onnx.save(model, folder / "m.onnx", save_as_external_data=True, size_threshold=0,
              location="weights.bin")  # fmt: skip
    (folder / "weights.bin").unlink()
    return infc("compile", folder / "m.onnx", "-o", folder / "out")


def unforeseen(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Done:
    def fall_over(*_: object) -> None:
        raise RuntimeError("the bug")

    monkeypatch.setattr(driver, "compile", fall_over)
    return compile_text(SMALL)(folder, monkeypatch)


def with_pass(cls: type) -> Trigger:
    """Compile with a pass of this file at the end of the pipeline."""

    def trigger(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Done:
        module = ModuleType("a_bad_pass")
        module.Bad = cls  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "a_bad_pass", module)
        last = Phase("last", (PassSpec("bad", "a_bad_pass:Bad", "a bug"),))
        monkeypatch.setattr(pipeline, "PIPELINE", (*pipeline.PIPELINE, last))
        return compile_text(SMALL)(folder, monkeypatch)

    return trigger


class Raises(InPlacePass):
    def call(self, model: ir.Model) -> PassResult:
        raise IndexError("pop from empty list")


class ChangesNumbers(InPlacePass):
    def call(self, model: ir.Model) -> PassResult:
        for node in model.graph:
            if node.op_type == "Relu":
                node.op_type = "Neg"
        return PassResult(model, modified=True)


def no_sdk(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Done:
    from infc.targets import onnxruntime

    monkeypatch.setattr(onnxruntime, "MODULES", ("a_module_that_nobody_has",))
    return compile_text(SMALL)(folder, monkeypatch)


def tampered(file: str, data: bytes | None, *words: str) -> Trigger:
    """Verify a bundle one file of which is another, with its new hash in the manifest.

    Without `data` the kept answers become others than the artifact's.
    """

    def trigger(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Done:
        model = write_model(folder / "m.onnx")
        done = infc("compile", model, "-o", folder, "-q", "--samples", "1", "--loader", "cpp")
        path = Path(done.out.strip())
        size = (path / file).stat().st_size
        sevens = np.full(size // 4, 7, np.float32).tobytes()
        (path / file).write_bytes(sevens if data is None else data)
        manifest = json.loads((path / "manifest.json").read_text())
        manifest["files"][file]["sha256"] = bundle.sha256_of(path / file)
        (path / "manifest.json").write_text(json.dumps(manifest))
        return infc("verify", path, *words)

    return trigger


def unknown_rank(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Done:
    helper = onnx.helper
    x, y = (helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in "xy")
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "g", [x], [y])
    opsets = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), folder / "m.onnx")
    return infc("compile", folder / "m.onnx", "-o", folder / "out", "--no-verify")


def damaged(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Done:
    done = infc("compile", write_model(folder / "m.onnx"), "-o", folder, "-q", "--no-verify")
    path = Path(done.out.strip())
    with (path / "model/model.onnx").open("ab") as stream:
        stream.write(b"!")
    return infc("verify", path)


def occupied(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Done:
    (folder / "out").write_text("a file where a folder is wanted")
    return compile_text(SMALL)(folder, monkeypatch)


def graph(signature: str, body: str, header: str = 'ir_version: 8, opset_import: ["": 17]') -> str:
    return f"<{header}> g {signature} {{ {body} }}"


OLD = 'ir_version: 8, opset_import: ["": 6]'
TRIGGERS: dict[str, Trigger] = {
    "E100": compile_bytes(None),
    "E101": compile_bytes(b""),
    "E102": compile_bytes(b"\x08\x08\x3a\xff\xff\xff\x0f broken off"),
    "E103": missing_data,
    "E104": compile_text(graph("(float[2] x) => (float[2] y)", "y = Add(x, nowhere)")),
    "E105": compile_text(graph("(float[2] x) => (float[2] y)", "y = Relu(x)", OLD)),
    "E106": compile_text(SMALL, "--input", "picture=1x3x8x8"),
    "E107": compile_text(
        graph(
            "(float[2] x) => (float[1] y)",
            "i = Constant <value = int64[1] {9}> () y = Gather(x, i)",
        )
    ),
    "E108": compile_text(graph("(string[2] x) => (string[2] y)", "y = Identity(x)")),
    "E110": compile_text(SMALL, "--verify-data", "nowhere.npz"),
    "E201": compile_text(SMALL, "-t", "jetsn"),
    "E203": compile_text(
        graph(
            "(float[2] x) => (float[2] y)",
            "y = com.microsoft.Gelu (x, x)",
            'ir_version: 8, opset_import: ["": 17, "com.microsoft": 1]',
        ),
        "--no-verify",
    ),
    "E205": compile_text(SMALL, "-X", "turbo=1"),
    "E300": unforeseen,
    "E301": with_pass(Raises),
    "E302": compile_text(SMALL, "--disable-pass", "eliminate-everything"),
    "E501": no_sdk,
    "E601": with_pass(ChangesNumbers),
    "E602": tampered("reference/0/outputs/0.bin", None),
    "E603": tampered("reference/0/outputs/0.bin", None, "--through", "cpp"),
    "E604": compile_text(
        graph("(float[2] x) => (float[2] y)", "a = Abs(x) n = Neg(a) y = Sqrt(n)")
    ),
    "E701": occupied,
    "E702": damaged,
    "E703": tampered("loader/cpp/main.cpp", b"#error on purpose\n", "--through", "cpp"),
    "E704": unknown_rank,
    "E705": tampered("model/model.onnx", b"another model", "--through", "cpp"),
}


@pytest.mark.parametrize("code", TRIGGERS)
def test_it_really_comes_about(
    code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, need_tool: Callable[[str], str]
) -> None:
    if code in ("E603", "E703", "E705"):
        need_tool("cmake")
        need_tool("c++")
    before = sorted(tmp_path.iterdir())
    done = TRIGGERS[code](tmp_path, monkeypatch)
    assert done.err.startswith(f"error[{code}]: "), done.err
    assert done.status == CODES[code].exit_code
    assert "Traceback" not in done.err
    assert before == []
    left = {p.name for p in tmp_path.rglob("*")}
    assert not any(name.startswith(bundle.STAGE_PREFIX) for name in left)


def test_every_other_code_has_its_test_elsewhere() -> None:
    """Those that need a misbehaving worker, a compiler or another back end."""
    text = "".join(
        file.read_text() for file in (ROOT / "tests").rglob("*.py") if file != Path(__file__)
    )
    untested = [code for code in CODES if code not in TRIGGERS and f'"{code}"' not in text]
    assert untested == []


def test_a_note_does_not_stop_the_build(tmp_path: Path) -> None:
    """E109 is said, and the bundle is made."""
    text = SMALL.replace("[batch,3,8,8] image)", "[batch,3,8,8] image, float[4] b)")
    done = infc("compile", write_model(tmp_path / "m.onnx", text), "-o", tmp_path, "--no-verify")
    assert done.err.startswith("note[E109]: "), done.err
    assert done.status == 0


def test_an_error_raised_carries_its_exit_code() -> None:
    error = InfcError(Diagnostic("E602", "a"), Diagnostic("E602", "b"))
    assert error.exit_code is ExitCode.VERIFICATION_FAILED
    assert str(error) == "error[E602]: a\nerror[E602]: b"
