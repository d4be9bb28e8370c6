"""The Python API: the same power as the command line, errors as exceptions."""

from __future__ import annotations

import inspect
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import onnx
import pytest
from command import write_model

import infc
from infc import api
from infc.cli import cli
from infc.targets import Target


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("model") / "small.onnx")


@pytest.fixture(scope="module")
def bundle(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    result = infc.compile(model, "cpu", tmp_path_factory.mktemp("build"))
    path = result.results[0].bundle
    assert path is not None
    return path


VERBS = (
    *("compile", "optimize", "quantize", "finish", "verify"),
    *("debug_accuracy", "bench", "inspect", "package", "tune"),
)


def test_names() -> None:
    assert sorted(infc.__all__) == dir(infc)
    for name in infc.__all__:
        assert getattr(infc, name) is not None
    with pytest.raises(AttributeError, match="frobnicate"):
        infc.frobnicate  # noqa: B018


@pytest.mark.parametrize("name", VERBS)
def test_a_verb_is_a_function_whatever_was_imported_before(name: str) -> None:
    """A module of the same name would take its place."""
    program = (
        "import infc.cli, infc.driver, infc.results.compiling, infc.inspection\n"
        "import infc.verification, infc\n"
        f"assert callable(infc.{name}), infc.{name}"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_importing_costs_nothing() -> None:
    program = "import infc, sys; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert not {"onnx", "onnx_ir", "numpy", "click", "infc.driver"} & set(done.stdout.split())


PARAMETERS = {
    "targets": {"targets"},
    "inputs": {"inputs"},
    "pairs": {"options"},
    "disabled": {"passes"},
    "dump_after": {"passes"},
    "dump_dir": {"passes"},
    "check_passes": {"passes"},
    "no_verify": {"verify"},
    "verify_data": {"verify", "options"},
    "samples": {"verify", "options"},
    "seed": {"verify", "options"},
    "timeout": {"limits"},
    "memory_limit": {"limits"},
    "preprocess": {"calibration", "pruning"},
    "calibration_samples": {"calibration"},
    "calibration_batch": {"calibration"},
    "method": {"calibration"},
    "percentile": {"calibration"},
    "min_sqnr": {"budget", "min_sqnr_db"},
    "layers": {"confirm"},
    "model_class": {"reading"},
    "signature": {"reading"},
    "graph_outputs": {"reading"},
    "layout": {"reading"},
    "allow_pickle": {"reading", "allow_pickle"},
    **{f"prune{word}": {"pruning"} for word in ("", "_scope", "_norm", "_multiple", "_normalized")},
    "bundles": {"bundle"},
    **{
        option: {"settings", "threads"}
        for option in (
            *("max_batch", "preferred_batch", "queue_delay_us", "instances", "kind", "gpus"),
            *("serve", "threads", "cuda_graphs", "warmup"),
        )
    },
    "max_drop": {"budget"},
    "metric": {"budget", "pruning"},
    "labelled": {"budget", "pruning"},
    "max_latency": {"budget"},
    "tune": {"tuning"},
    "databases": {"tuning"},
    "quiet": {"progress"},
    "verbose": {"progress"},
}
"""Options of the command line to the parameters of the API that do the same."""


ELSEWHERE = {
    ("compile", "package"),  # `infc.package` takes the bundles that `compile` gives
    ("compile", "repository"),
    ("package", "format_"),  # there is one
    ("package", "quiet"),
}


@pytest.mark.parametrize("name", VERBS)
def test_whatever_the_command_line_can_do(name: str) -> None:
    function: Callable[..., Any] = getattr(api, name)
    have = set(inspect.signature(function).parameters)
    command = cli.commands[name.replace("_", "-")]
    if isinstance(command, click.Group):
        command = command.commands["model"]
    for parameter in command.params:
        option = str(parameter.name)
        if option not in ("json", "traceback", "config") and (name, option) not in ELSEWHERE:
            assert PARAMETERS.get(option, {option}) & have, option


def test_every_function_says_what_it_raises() -> None:
    for name in VERBS:
        assert "Raises:\n    InfcError: " in (inspect.getdoc(getattr(api, name)) or "")


def test_compile(model: Path, tmp_path: Path) -> None:
    steps: list[tuple[str, str]] = []
    result = infc.compile(
        str(model),
        ["cpu", "onnxruntime"],
        tmp_path,
        name="net",
        inputs={"image": "1..4@2x3x8x8"},
        precision="fp32",
        options={"graph-optimization": "basic"},
        passes=infc.PassOptions(disabled=frozenset({"eliminate-identity"})),
        verify=infc.VerifyOptions(samples=1, seed=3),
        limits=infc.WorkerLimits(timeout_s=60),
        loaders=[],
        progress=lambda target, step: steps.append((target, step)),
    )
    assert result.exit_code is infc.ExitCode.DONE
    assert [row.bundle for row in result.results] == [
        tmp_path / "net-cpu",
        tmp_path / "net-onnxruntime",
    ]
    manifest = infc.inspect(tmp_path / "net-cpu")["manifest"]
    assert Target.from_json(manifest["target"]).options["graph-optimization"] == "basic"
    assert manifest["verification"]["sets"] == 3
    assert manifest["loaders"] == []
    assert ("cpu", "building") in steps


def test_compile_without_proof(model: Path, tmp_path: Path) -> None:
    result = infc.compile(model, output=tmp_path, verify=False)
    assert result.results[0].verification == {"verdict": "skipped"}


def test_a_failing_target_raises_once_the_others_are_done(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from infc.targets import onnxruntime

    def refuse(graph: Any, target: Target) -> None:
        if target.name == "onnxruntime":
            raise infc.InfcError(infc.Diagnostic("E204", "refused"))

    monkeypatch.setattr(onnxruntime, "legalize", refuse)
    with pytest.raises(infc.InfcError, match="refused") as raised:
        infc.compile(model, ["onnxruntime", "cpu"], tmp_path, verify=False)
    assert raised.value.exit_code is infc.ExitCode.BUILD_FAILED
    assert (tmp_path / "small-cpu/manifest.json").is_file()
    result = infc.compile(model, ["onnxruntime", "cpu"], tmp_path, verify=False, check=False)
    assert [row.bundle is None for row in result.results] == [True, False]
    assert result.results[0].diagnostics == raised.value.diagnostics


def test_optimize(model: Path, tmp_path: Path) -> None:
    result = infc.optimize(model, tmp_path / "small.onnx", external_data=True)
    assert result.verification["ok"] is True
    assert result.nodes_after < result.nodes_before == 3
    onnx.checker.check_model(tmp_path / "small.onnx")
    assert (tmp_path / "small.onnx.data").is_file()


def test_verify_and_bench(bundle: Path, model: Path) -> None:
    assert [error.ok for error in infc.verify(bundle).errors] == [True]
    options = infc.VerifyOptions(samples=1)
    assert infc.verify(bundle, source=model, options=options).sets == 3
    figures = infc.bench(bundle, runs=2, warmup=0, dims={"batch": 2})
    assert figures["runs"] == 2
    assert figures["inputs"] == {"image": [2, 3, 8, 8]}


def test_inspect(bundle: Path, model: Path) -> None:
    assert infc.inspect(str(model))["nodes"] == 3
    assert infc.inspect(bundle)["kind"] == "bundle"


@pytest.mark.parametrize(
    ("call", "code"),
    [
        (lambda m: infc.compile(m, precision="fp33"), "E110"),
        (lambda m: infc.compile(m, loaders=["rust"]), "E110"),
        (lambda m: infc.compile(m, []), "E110"),
        (lambda m: infc.compile(m, inputs={"image": "axbx-1"}), "E110"),
        (lambda m: infc.compile(m, "tpu"), "E201"),
        (lambda m: infc.compile(m.parent / "absent.onnx", output=m.parent / "out"), "E100"),
        (lambda m: infc.optimize(m, m / "below-a-file.onnx"), "E701"),
        (infc.verify, "E702"),
        (lambda m: infc.verify(m, through="rust"), "E110"),
        (lambda m: infc.bench(m, through="rust"), "E110"),
        (lambda m: infc.bench(m, runs=0), "E110"),
        (lambda m: infc.inspect(m.parent), "E702"),
    ],
)
def test_errors_are_exceptions_with_diagnostics(
    model: Path, call: Callable[[Path], object], code: str
) -> None:
    with pytest.raises(infc.InfcError) as raised:
        call(model)
    assert raised.value.diagnostics[0].code == code
    assert not (model.parent / "out").exists()
