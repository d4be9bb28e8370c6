"""Imports point down, and the command line imports nothing slow."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT

from infc.targets import BACK_ENDS, module_of

CORE = {
    "infc",
    "infc.budget",
    "infc.request",
    "infc.input_spec",
    "infc.import_options",
    "infc.user_code",
    "infc.diagnostics",
    "infc.places",
    "infc.model_key",
    "infc.bundle",
    "infc.signature",
    "infc.preprocessing",
    "infc.prune_options",
    "infc.quantization",
    "infc.tuning_options",
}
LEVELS = {
    "infc.__main__": 6,
    "infc.cli": 5,
    "infc.commands": 5,
    "infc.options": 5,
    "infc.api": 4,
    "infc.results": 4,
    "infc.driver": 3,
    "infc.passes": 1,
    "infc.targets": 1,
    "infc.templates": 0,
}
PACKAGES = {
    "infc": "compiler",
    "infc.passes": "passes",
    "infc.targets": "targets",
    "infc.templates": "templates",
}
SDKS = {"onnxruntime", "openvino", "torch", "tensorflow", "tvm", "tensorrt", "tensorrt_rtx"}


def modules() -> list[tuple[str, Path]]:
    found = []
    for package, folder in PACKAGES.items():
        for path in sorted((ROOT / folder).rglob("*.py")):
            parts = path.relative_to(ROOT / folder).with_suffix("").parts
            name = ".".join([package, *(p for p in parts if p != "__init__")])
            found.append((name, path))
    return found


def level(module: str) -> int:
    """Of a module, or of the module that a name belongs to."""
    if module == "infc":
        return 0
    while module != "infc":
        if module in CORE:
            return 0
        if module in LEVELS:
            return LEVELS[module]
        module = module.rpartition(".")[0]
    return 2


def imports(path: Path) -> list[tuple[str, bool]]:
    """(module, whether the import is at the top level and not for type checkers only)."""
    tree = ast.parse(path.read_text())
    out = []
    for node in ast.walk(tree):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module, *(f"{node.module}.{a.name}" for a in node.names)]
        out.extend((name, node in tree.body) for name in names)
    return out


@pytest.mark.parametrize(("module", "path"), modules(), ids=lambda v: str(v) if v else "")
def test_imports_point_down(module: str, path: Path) -> None:
    if module == "infc":  # resolves the public API lazily
        return
    for imported, _ in imports(path):
        if imported.startswith("infc"):
            assert level(imported) <= level(module), f"{module} imports {imported}"
        if module.startswith("infc.passes"):
            assert not imported.startswith("infc.targets"), f"{module} imports {imported}"


@pytest.mark.parametrize(("module", "path"), modules(), ids=lambda v: str(v) if v else "")
def test_vendor_sdks_are_imported_inside_functions(module: str, path: Path) -> None:
    top = {name.partition(".")[0] for name, at_top in imports(path) if at_top}
    assert not top & SDKS, f"{module} imports {top & SDKS} at its top level"


COMPLETIONS = {
    "infc comp": "compile",
    "infc compile --target intel-c": "intel-cpu",
    "infc compile --disable-pass inline-f": "inline-functions",
    "infc explain E70": "E702",
    "infc toolchain install mindsp": "mindspore-lite",
    "infc inspect digits": "digits.onnx",
}


@pytest.mark.parametrize(
    "words",
    [["--help"], ["compile", "--help"], ["completion", "bash"], ["passes"], ["explain", "E203"]],
    ids=" ".join,
)
def test_help_imports_nothing_slow(words: list[str]) -> None:
    assert not loaded_by(words, {}) & SLOW


@pytest.mark.parametrize("line", COMPLETIONS)
def test_completion_imports_nothing_slow(line: str, tmp_path: Path) -> None:
    (tmp_path / "digits.onnx").touch()
    (tmp_path / "digits.txt").touch()
    environment = {
        "_INFC_COMPLETE": "bash_complete",
        "COMP_WORDS": line,
        "COMP_CWORD": str(len(line.split()) - 1),
    }
    assert not loaded_by([], environment, tmp_path, f"plain,{COMPLETIONS[line]}\n") & SLOW


SLOW = {"onnx", "onnx_ir", "numpy", "jinja2", "rich", "jsonschema", "sympy"} | SDKS


def loaded_by(
    words: list[str], environment: dict[str, str], cwd: Path = ROOT, printed: str = ""
) -> set[str]:
    """The top-level modules that `infc words...` has imported when it exits."""
    program = (
        "import sys, runpy; sys.argv = ['infc', *sys.argv[1:]]\n"
        "from infc.cli import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "print(*sorted({m.partition('.')[0] for m in sys.modules}), file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, *words],
        capture_output=True,
        text=True,
        check=True,
        cwd=cwd,
        env={**os.environ, **environment},
    )
    assert printed in done.stdout
    return set(done.stderr.split())


def test_a_worker_imports_its_sdk_and_little_else() -> None:
    """Every build starts some: what their modules import is paid each time."""
    names = ["infc.workers.child", "infc.beside", "infc.turns", *map(module_of, BACK_ENDS)]
    program = (
        "import importlib, sys\n"
        "for name in sys.argv[1:]: importlib.import_module(name)\n"
        "print(*sorted({m.partition('.')[0] for m in sys.modules}))"
    )
    command = [sys.executable, "-c", program, *names]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
    assert not set(done.stdout.split()) & SLOW
