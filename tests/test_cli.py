"""The command line: what goes where, in which form, with which exit code."""

from __future__ import annotations

import json
import os
import re
import resource
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import click
import onnx
import pytest
from command import Done, infc, write_model

from infc import driver
from infc.cli import cleaning_up, cli
from infc.diagnostics import CODES, Diagnostic, InfcError, Severity
from infc.passes import pass_names
from infc.targets import BACK_ENDS, profiles
from infc.workers import toolchains

INFC = [sys.executable, "-c", "from infc.cli import main; main()"]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("model") / "small.onnx")


@pytest.fixture(scope="module")
def compiled(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Done:
    build = tmp_path_factory.mktemp("build")
    return infc("compile", model, "-o", build, "--json")


@pytest.fixture(scope="module")
def bundle(compiled: Done) -> Path:
    assert compiled.status == 0, compiled.err
    return Path(compiled.document["results"][0]["bundle"])


def test_every_verb_has_json_and_traceback() -> None:
    for name, command in cli.commands.items():
        flags = {opt for parameter in command.params for opt in parameter.opts}
        assert {"--json", "--traceback"} <= flags, name
        # click's mark for lines that stay as they are was printed where it stood for itself
        assert "\\b" not in command.get_help(click.Context(command)), name
    names = (
        "compile optimize quantize finish inspect verify debug-accuracy bench targets passes doctor"
    )
    assert list(cli.commands) == [
        *names.split(),
        *("tune", "package", "toolchain", "device", "explain", "completion"),
    ]
    groups = {"toolchain": ["list", "install", "remove", "lock"], "device": ["server", "tracker"]}
    for title, verbs in groups.items():
        group = cli.commands[title]
        assert isinstance(group, click.Group)
        assert list(group.commands) == verbs
        for name, command in group.commands.items():
            flags = {opt for parameter in command.params for opt in parameter.opts}
            assert {"--json", "--traceback"} <= flags, name


def test_compile_json(compiled: Done, bundle: Path) -> None:
    document = compiled.document
    assert document["ok"] is True
    assert document["exit_code"] == 0
    (row,) = document["results"]
    assert row["target"] == "cpu"
    assert row["verification"]["verdict"] == "passed"
    assert (bundle / "manifest.json").is_file()
    assert document["nodes_after"] < document["nodes_before"]
    assert compiled.err == "" or compiled.err.startswith("note")


def test_compile_text_says_what_was_built_and_how_to_go_on(model: Path, tmp_path: Path) -> None:
    done = infc("compile", model, "-o", tmp_path, "--name", "net", "-t", "cpu", "--loader", "cpp")
    assert done.status == 0, done.err
    lines = done.out.splitlines()
    assert lines[0] == f"cpu  {tmp_path / 'net-cpu'}"
    labels = [line.split()[0] for line in lines[1:]]
    assert labels == ["artifact", "nodes", "verified", "scores", "next"]
    assert "3 -> " in lines[2]
    assert lines[-1].split(maxsplit=1)[1] == f"infc verify {tmp_path / 'net-cpu'} --through cpp"
    assert "\x1b" not in done.out


def test_how_to_go_on_can_be_pasted_and_works(model: Path, tmp_path: Path) -> None:
    done = infc("compile", model, "-o", tmp_path, "--name", "my net", "--no-verify")
    words = shlex.split(done.out.splitlines()[-1])[1:]
    # Not `verify`: a bundle that was not verified holds nothing to verify with.
    assert words == ["infc", "bench", str(tmp_path / "my net-cpu")]
    assert infc(*words[1:]).status == 0


def test_quiet_prints_paths_only(model: Path, tmp_path: Path) -> None:
    done = infc("compile", model, "-o", tmp_path, "-q", "--no-verify", "--loader", "none")
    assert (done.status, done.out) == (0, f"{tmp_path / 'small-cpu'}\n")
    manifest = json.loads((tmp_path / "small-cpu/manifest.json").read_text())
    assert manifest["verification"] == {"verdict": "skipped"}
    assert manifest["loaders"] == []


def test_verbose_prints_a_line_for_every_step(model: Path, tmp_path: Path) -> None:
    done = infc("compile", model, "-o", tmp_path, "-v", "--no-verify")
    steps = [line.split(maxsplit=2)[2] for line in done.err.splitlines() if "note" not in line]
    assert "reading the model" in steps
    assert f"pass {pass_names()[0]}" in steps
    assert "cpu: building" in steps


def test_options_reach_the_bundle(model: Path, tmp_path: Path) -> None:
    done = infc(
        "compile", model, "-o", tmp_path, "--json", "--input", "image=1..4@2x3x8x8",
        "-X", "graph-optimization=basic", "--disable-pass", "eliminate-identity",
        "--precision", "fp32", "--samples", "1", "--seed", "7", "--timeout", "60",
        "--memory-limit", "64G",
    )  # fmt: skip
    assert done.status == 0, done.err
    manifest = json.loads((tmp_path / "small-cpu/manifest.json").read_text())
    assert list(manifest["inputs"][0]["bounds"].values()) == [[1, 2, 4]]
    assert manifest["target"]["options"]["graph-optimization"] == "basic"
    assert "eliminate-identity" not in [row["name"] for row in manifest["passes"]]
    assert manifest["verification"]["inputs"] == "random, seed 7"
    assert manifest["verification"]["sets"] == 3


def test_dump_after_writes_the_graph(model: Path, tmp_path: Path) -> None:
    dumps = tmp_path / "dumps"
    done = infc(
        "compile", model, "-o", tmp_path, "--no-verify", "--check-passes",
        "--dump-after", "eliminate-identity", "--dump-dir", dumps,
    )  # fmt: skip
    assert done.status == 0, done.err
    assert [p.name.partition("-")[2] for p in dumps.iterdir()] == ["eliminate-identity.onnx"]


def test_one_target_fails_and_the_other_is_built(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from infc.targets import onnxruntime

    legalize = onnxruntime.legalize

    def refuse(graph: Any, target: Any) -> None:
        if target.name == "onnxruntime":
            raise InfcError(Diagnostic("E204", "refused", where="a"), Diagnostic("E204", "refused"))
        legalize(graph, target)

    monkeypatch.setattr(onnxruntime, "legalize", refuse)
    words = ("compile", model, "-o", tmp_path, "-t", "onnxruntime", "-t", "cpu", "--no-verify")
    done = infc(*words, "--json")
    failed, built = done.document["results"]
    assert (done.status, done.document["ok"], done.document["exit_code"]) == (1, False, 1)
    assert (failed["ok"], failed["bundle"]) == (False, None)
    assert [d["code"] for d in failed["diagnostics"]] == ["E204", "E204"]
    assert built["ok"]
    done = infc(*words)
    assert done.err.count("error[E204]: refused") == 1, "one diagnostic for each cause"
    assert "onnxruntime  failed (E204)" in done.out
    assert f"cpu  {tmp_path / 'small-cpu'}" in done.out


def test_optimize(model: Path, tmp_path: Path) -> None:
    output = tmp_path / "smaller.onnx"
    done = infc("optimize", model, "-o", output, "--json")
    assert done.status == 0, done.err
    assert output.is_file()
    assert (done.document["nodes_before"], done.document["output"]) == (3, str(output))
    assert done.document["verification"]["ok"] is True
    text = infc("optimize", model, "-o", output, "--no-verify").out
    assert text.startswith(str(output))
    assert "skipped" in text


def test_inspect_model(model: Path) -> None:
    document = infc("inspect", model, "--json").document
    assert document["kind"] == "onnx"
    assert document["opsets"] == {"ai.onnx": 17}
    assert document["operators"] == {"Conv": 1, "Identity": 1, "Relu": 1}
    assert document["parameters"] == {"tensors": 2, "elements": 16, "bytes": 64}
    image = {"name": "image", "dtype": "float32", "shape": ["batch", 3, 8, 8]}
    assert document["inputs"] == [image]
    text = infc("inspect", model).out
    assert "batchx3x8x8" in text
    assert "Conv 1, Identity 1, Relu 1" in text


def test_inspect_reports_external_data_without_reading_it(tmp_path: Path) -> None:
    import numpy as np
    import onnx

    w = onnx.numpy_helper.from_array(np.ones((4, 4), np.float32), "w")
    y = onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [4, 4])
    node = onnx.helper.make_node("Identity", ["w"], ["y"])
    proto = onnx.helper.make_model(onnx.helper.make_graph([node], "g", [], [y], [w]))
    onnx.save(proto, tmp_path / "m.onnx", save_as_external_data=True, size_threshold=0,
              location="w.bin")  # fmt: skip
    rows = infc("inspect", tmp_path / "m.onnx", "--json").document["external_data"]
    assert rows == [{"file": "w.bin", "bytes": 64, "state": "present"}]
    (tmp_path / "w.bin").write_bytes(b"short")
    (row,) = infc("inspect", tmp_path / "m.onnx", "--json").document["external_data"]
    assert row["state"] == "too short: 64 bytes are needed"
    (tmp_path / "w.bin").unlink()
    assert "missing" in infc("inspect", tmp_path / "m.onnx").out


def test_inspect_bundle(bundle: Path) -> None:
    document = infc("inspect", bundle, "--json").document
    assert document["kind"] == "bundle"
    assert document["manifest"]["target"]["name"] == "cpu"
    text = infc("inspect", bundle / "manifest.json").out
    assert "passed on" in text
    assert "model/model.onnx" in text


def test_verify(bundle: Path) -> None:
    document = infc("verify", bundle, "--json").document
    assert document["ok"] is True
    assert [row["name"] for row in document["outputs"]] == ["scores"]
    assert infc("verify", bundle).out.startswith(f"passed  {bundle} through runtime")


def test_verify_against_the_model_itself(bundle: Path, model: Path) -> None:
    done = infc("verify", bundle, "--source", model, "--samples", "1", "--json")
    assert done.status == 0, done.err


def test_bench(bundle: Path) -> None:
    done = infc("bench", bundle, "--runs", "3", "--warmup", "1", "--dim", "batch=5", "--json")
    assert done.status == 0, done.err
    figures = done.document
    assert figures["inputs"] == {"image": [5, 3, 8, 8]}
    assert 0 < figures["min_ms"] <= figures["median_ms"] <= figures["max_ms"]
    assert " ms  " in infc("bench", bundle, "--runs", "1").out


def test_targets() -> None:
    rows = infc("targets", "--json").document["targets"]
    assert [row["name"] for row in rows] == list(profiles())
    assert all(isinstance(row["installed"], bool) for row in rows)
    table = infc("targets").out.splitlines()
    assert table[0].split() == ["TARGET", "BACK", "END", "DEVICE", "PRECISION", "INSTALLED"]
    assert len(table) == len(rows) + 1


@pytest.mark.parametrize("name", profiles())
def test_target_details(name: str) -> None:
    document = infc("targets", name, "--json").document
    assert document["target"]["name"] == name
    assert document["target"]["precision"] in document["back_end"]["precisions"]
    for option in document["back_end"]["options"]:
        assert f"-X {option}=" in infc("targets", name).out


def test_passes() -> None:
    document = infc("passes", "--json").document
    assert tuple(row["name"] for row in document["passes"]) == pass_names()
    text = infc("passes").out
    assert all(row["summary"] in text for row in document["passes"])


def test_explain_lists_all_codes() -> None:
    assert [row["code"] for row in infc("explain", "--json").document["codes"]] == list(CODES)
    assert len(infc("explain").out.splitlines()) == len(CODES)


@pytest.mark.parametrize("spelling", ["E203", "e203", "error[E203]", "[E203]:"])
def test_explain_takes_a_code_as_it_was_printed(spelling: str) -> None:
    assert infc("explain", spelling, "--json").document["code"] == "E203"


def test_explain_unknown_names_the_nearest() -> None:
    done = infc("explain", "E702X")
    assert done.status == 2
    assert "did you mean `E702`" in done.err


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_prints_a_script(shell: str, need_tool: Any) -> None:
    text = infc("completion", shell).out
    assert "_INFC_COMPLETE" in text
    assert infc("completion", shell, "--json").document["shell"] == shell
    if shell == "bash":
        subprocess.run([need_tool("bash"), "-n"], input=text, text=True, check=True)


def complete(line: str, cwd: Path) -> list[str]:
    environment = {
        **os.environ,
        "_INFC_COMPLETE": "bash_complete",
        "COMP_WORDS": line,
        "COMP_CWORD": str(len(line.split()) - (not line.endswith(" "))),
    }
    done = subprocess.run(
        INFC, env=environment, cwd=cwd, capture_output=True, text=True, check=True
    )
    return [row.removeprefix("plain,") for row in done.stdout.splitlines() if row]


def test_completion_of_paths(tmp_path: Path) -> None:
    for name in ("a.onnx", "notes.txt", "deep/er/b.onnx", "build/x-cpu/manifest.json"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "build/x-cpu.log").mkdir()
    assert complete("infc compile ", tmp_path) == ["a.onnx", "build/", "deep/"]
    assert complete("infc compile d", tmp_path) == ["deep/er/b.onnx"]
    assert complete("infc verify b", tmp_path) == ["build/x-cpu"]
    assert complete("infc inspect ", tmp_path) == ["a.onnx", "build/", "deep/"]
    for name in ("other/net.pt2", "other/net.tflite", "other/saved/saved_model.pb"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    found = ["other/net.pt2", "other/net.tflite", "other/saved"]
    assert complete("infc compile other/", tmp_path) == found
    assert complete("infc verify none/", tmp_path) == []


def test_completion_of_names(tmp_path: Path) -> None:
    assert complete("infc compile -t open", tmp_path) == ["openvino"]
    assert complete("infc explain e30", tmp_path) == ["E300", "E301", "E302", "E303"]
    assert complete("infc verify --through ", tmp_path) == ["runtime", "cpp", "java"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["compile"], "missing argument 'MODEL'"),
        (["compile", "m.onnx", "--outptu", "x"], "no such option"),
        (["explode"], "no such command 'explode'"),
        (["compile", "m.onnx", "--samples", "0"], "invalid value for '--samples'"),
        (["compile", "m.onnx", "--timeout", "0"], "invalid value for '--timeout'"),
        (["compile", "m.onnx", "--precision", "fp33"], "invalid value for '--precision'"),
        (["compile", "m.onnx", "--memory-limit", "lots"], "`lots` is not a size"),
        (["compile", "m.onnx", "--memory-limit", "0"], "`0` is not a size"),
        (["compile", "m.onnx", "-X", "fast"], "`-X fast` is not KEY=VALUE"),
        (["compile", "m.onnx", "-X", "a=1", "-X", "a=2"], "`-X a=` is given twice"),
        (["compile", "m.onnx", "--input", "x"], "`--input x` is not NAME=SHAPE"),
        (["compile", "m.onnx", "--name", "../x"], "`--name ../x` does not name a folder"),
        (["compile", "m.onnx", "--loader", "none", "--loader", "cpp"], "makes no sense"),
        (["bench", "b", "--dim", "batch=0"], "`--dim batch=0` is not NAME=N"),
        (["bench", "b", "--dim", "n=1", "--dim", "n=2"], "`--dim n=` is given twice"),
        (["doctor", "tea"], "doctor knows no `tea`"),
    ],
    ids=lambda v: " ".join(v) if isinstance(v, list) else "",
)
def test_usage_errors(words: list[str], message: str) -> None:
    done = infc(*words)
    assert (done.status, done.out) == (2, "")
    assert done.err.startswith("error[E110]: ")
    assert message in done.err
    document = infc(*words, "--json").document
    assert (document["ok"], document["exit_code"]) == (False, 2)
    assert [d["code"] for d in document["diagnostics"]] == ["E110"]


@pytest.mark.parametrize(
    ("text", "size"),
    [("8G", 8 << 30), ("1.5GiB", 3 << 29), ("500M", 500 << 20), ("64kB", 65536), ("4096", 4096)],
)
def test_sizes(text: str, size: int) -> None:
    from infc.request import parse_bytes

    assert parse_bytes(text) == size


@pytest.mark.parametrize(
    ("words", "near"),
    [
        (["-t", "open-vino"], "did you mean `openvino`"),
        (["--disable-pass", "eliminate-identitiy"], "did you mean `eliminate-identity`"),
    ],
)
def test_a_slip_is_answered_with_the_nearest_names(
    words: list[str], near: str, model: Path, tmp_path: Path
) -> None:
    done = infc("compile", model, "-o", tmp_path, *words)
    assert done.status == 2
    assert near in done.err


def test_without_a_verb_the_help_is_shown() -> None:
    done = infc()
    assert done.status == 2
    assert "Commands:" in done.err + done.out


def test_an_unforeseen_error_is_one_diagnostic(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fall_over(*_: object) -> None:
        raise RuntimeError("the bug")

    monkeypatch.setattr(driver, "compile", fall_over)
    done = infc("compile", model, "-o", tmp_path)
    assert done.status == 1
    assert done.err.startswith("error[E300]: internal error: RuntimeError: the bug\n  --> ")
    assert "Traceback" not in done.err
    for words in (["compile", model, "--traceback"], ["--traceback", "compile", model]):
        done = infc(*words)
        assert done.err.startswith("Traceback")
        assert "error[E300]" in done.err
    document = infc("compile", model, "--json").document
    assert [d["code"] for d in document["diagnostics"]] == ["E300"]


def test_warnings_are_printed_once_for_each_cause() -> None:
    from infc.diagnostics import merged

    rows = [Diagnostic("E109", "w", f"n{i}", severity=Severity.WARNING) for i in range(8)]
    (one,) = merged(rows)
    assert one.where.splitlines() == ["n0", "n1", "n2", "n3", "n4", "and 3 more places"]
    (error,) = merged(Diagnostic("E203", "w", row.where) for row in rows)
    assert len(error.where.splitlines()) == 8


def test_broken_pipe_is_silent() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [*INFC, "explain"], stdout=writer, stderr=subprocess.PIPE, text=True, check=False
    )
    os.close(writer)
    assert (done.returncode, done.stderr) == (141, "")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_to_stop_leaves_nothing(model: Path, tmp_path: Path, number: int) -> None:
    process = subprocess.Popen(
        [*INFC, "compile", str(model), "-o", str(tmp_path / "out"), "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    until = time.monotonic() + 60
    while not list(tmp_path.glob("out/.infc-stage-*/lock")) and time.monotonic() < until:
        time.sleep(0.01)
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, err.strip()) == (128 + number, "interrupted")
    assert json.loads(out) == {"ok": False, "exit_code": 128 + number, "diagnostics": []}
    assert list(tmp_path.rglob("*")) == []


def test_a_signal_that_the_caller_ignores_stays_ignored() -> None:
    """As under `nohup`."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with cleaning_up():
            assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
            assert signal.getsignal(signal.SIGTERM) != signal.SIG_DFL
        assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    finally:
        signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize("words", ["passes", "--version", "passes --json", "bogus"])
@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&- >&- 2>&-"])
def test_closed_streams(words: str, closed: str) -> None:
    command = f"{shlex.join(INFC)} {words} {closed}"
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=False)
    assert done.returncode == (2 if words == "bogus" else 0)
    assert "Traceback" not in done.stderr
    assert (done.stdout == "") == (">&-" in closed.split() or words == "bogus")


def test_output_to_a_full_device_is_one_diagnostic() -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [*INFC, "passes"], stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )
    assert done.returncode == 1
    expected = "error[E701]: standard output cannot be written: No space left on device\n"
    assert done.stderr == expected


@pytest.mark.parametrize("words", [["--help"], ["compile", "--help"]])
def test_help_is_fast(words: list[str]) -> None:
    def cpu_s() -> float:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([*INFC, *words], capture_output=True, check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    assert min(cpu_s() for _ in range(5)) < 0.15


def test_doctor_finds_what_is_installed_and_imports_no_sdk() -> None:
    program = (
        "import sys; sys.argv = ['infc', 'doctor', '--json']\n"
        "from infc.cli import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "print(*sys.modules, file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    document = json.loads(done.stdout)
    groups = {group["name"]: group for group in document["groups"]}
    environments = [f"toolchain {entry.name}" for entry in toolchains.entries()]
    assert list(groups) == ["base", *BACK_ENDS, *environments, "cpp", "java", "cross"]
    assert groups["base"]["ready"]
    found = {item["name"]: item["found"] for item in groups["base"]["items"]}
    assert {"onnx", "onnx-ir", "numpy", "onnxruntime", "click"} <= set(found)
    assert not {"onnxruntime", "openvino", "torch"} & set(done.stderr.split())


def test_doctor_gives_the_command_for_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    from importlib import metadata

    def version(name: str, real: Any = metadata.version) -> Any:
        if name == "openvino":
            raise metadata.PackageNotFoundError(name)
        return real(name)

    monkeypatch.setattr(metadata, "version", version)
    done = infc("doctor", "intel-npu", "--json")
    (group,) = (group for group in done.document["groups"] if group["name"] == "openvino")
    assert (done.status, done.document["required"]) == (4, ["base", "openvino"])
    assert not group["ready"]
    assert group["items"][0]["remedy"].endswith(" -m pip install 'openvino>=2026.0'")
    assert "missing" in infc("doctor").out
    assert infc("doctor").status == 0


def test_doctor_exits_with_4_where_something_required_is_missing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    assert infc("doctor").status == 0, "the base needs no compiler"
    done = infc("doctor", "cpp")
    assert done.status == 4
    assert "missing" in done.out
    assert "install" in done.out
    done = infc("doctor", "cross", "--json")
    assert done.status == 4
    (group,) = (group for group in done.document["groups"] if group["name"] == "cross")
    lacking = {item["name"]: item["remedy"] for item in group["items"] if item["found"] is None}
    assert lacking["riscv64-linux-gnu emulator"] == "apt install qemu-user libc6-riscv64-cross"
    assert lacking["arm-none-eabi emulator"] == "apt install qemu-system-arm"


def test_colour_is_for_terminals_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """In a pseudo-terminal there is colour, unless NO_COLOR says no."""
    import pty

    def seen(environment: dict[str, str]) -> bytes:
        parent, child = pty.openpty()
        with subprocess.Popen(
            [*INFC, "explain", "E000"], stderr=child, env={**os.environ, **environment}
        ):
            os.close(child)
            text = b""
            while True:
                try:
                    block = os.read(parent, 4096)
                except OSError:
                    break
                text += block
        os.close(parent)
        return text

    monkeypatch.delenv("NO_COLOR", raising=False)
    assert b"\x1b[1;31merror[E110]" in seen({})
    assert b"\x1b" not in seen({"NO_COLOR": "1"})


def test_the_locale_changes_nothing(tmp_path: Path) -> None:
    """Names beyond ASCII where the system's own encoding has none of them."""
    graph = onnx.load(write_model(tmp_path / "m.onnx")).graph
    graph.input[0].name = graph.node[0].input[0] = "größe"
    graph.name = graph.node[1].name = "模"
    model = tmp_path / "m.onnx"
    opset = onnx.helper.make_opsetid("", 17)
    onnx.save(onnx.helper.make_model(graph, opset_imports=[opset], ir_version=8), model)
    poor = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    for folder, extra in (("rich", {"PYTHONUTF8": "1"}), ("poor", poor)):
        done = subprocess.run(
            [*INFC, "compile", str(model), "-o", str(tmp_path / folder), "-q"],
            env={**os.environ, **extra},
            capture_output=True,
            text=True,
            check=False,
        )
        assert (done.returncode, done.stderr) == (0, "")
    ours, theirs = (
        {p.relative_to(f): p.read_bytes() for p in f.rglob("*") if p.is_file()}
        for f in (tmp_path / "rich" / "m-cpu", tmp_path / "poor" / "m-cpu")
    )
    assert ours == theirs


def test_optimize_into_a_folder_is_refused_at_once(tmp_path: Path) -> None:
    done = infc("optimize", tmp_path / "absent.onnx", "-o", tmp_path)
    assert done.status == 2
    assert done.err.startswith(f"error[E110]: `-o {tmp_path}` is a folder\n")


def test_an_option_goes_to_the_targets_that_have_it(tmp_path: Path) -> None:
    model = write_model(tmp_path / "small.onnx")
    words = ["compile", model, "-t", "cpu", "-t", "openvino", "-o", tmp_path / "out", "--no-verify"]
    ended = infc(*words, "--loader", "none", "-X", "format=ort")
    assert ended.status == 0, ended.err
    assert (tmp_path / "out" / "small-cpu" / "model" / "model.ort").exists()
    assert (tmp_path / "out" / "small-openvino" / "model" / "model.xml").exists()
    ended = infc(*words, "-X", "colour=blue")
    assert ended.status == 2
    assert "error[E205]: `onnxruntime` has no option `colour`" in ended.err
    ended = infc(*words, "-X", "format=bogus")
    assert ended.status == 2


def test_with_no_back_end_installed_the_model_is_not_even_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from infc.targets import openvino, torchscript

    for end in (openvino, torchscript):
        monkeypatch.setattr(end, "MODULES", ("a_module_that_nobody_has",))
    words = ["compile", tmp_path / "absent.onnx", "-o", tmp_path / "out"]
    ended = infc(*words, "-t", "openvino", "-t", "torchscript")
    assert ended.status == 4
    assert ended.err.count("error[E501]") == 2
    assert "E100" not in ended.err
    assert not (tmp_path / "out").exists()


def test_doctor_and_the_java_build_look_for_the_same_jdk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))  # no JDK, whatever javac is on the path
    ended = infc("doctor", "java")
    assert ended.status == 4
    assert re.search(r"jni\.h +missing", ended.out)
