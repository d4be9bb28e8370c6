"""The vendor's own converter and runtime, of an archive that MSLITE_HOME names.

The archive is made here: its layout and its flags are the vendor's, what works in it is the wheel.
"""

from __future__ import annotations

import os
import struct
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from command import Done, infc
from conftest import ROOT

from infc.bundle import Bundle, open_bundle
from infc.diagnostics import ExitCode, InfcError
from infc.targets import BackEndError, look_up
from infc.targets import mindspore_lite as end
from infc.targets import mindspore_lite_vendor as vendor
from infc.workers import toolchains

pytestmark = pytest.mark.xdist_group("cpp")

DIGITS = ROOT / "examples" / "digits" / "digits.onnx"
STAND_IN = Path(__file__).parent / "programs" / "converter_lite.py"


@pytest.fixture(autouse=True)
def nothing_of_the_vendors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(vendor.HOME_VARIABLE, raising=False)


@pytest.fixture
def archive(
    tmp_path: Path,
    need_back_end: Callable[[str], None],
    need_tool: Callable[[str], str],
    monkeypatch: pytest.MonkeyPatch,
) -> Path:
    """An archive with a converter and a runtime; every call of the converter is written down."""
    need_back_end("mindspore-lite")
    environment = toolchains.require("mindspore-lite")
    wheel = Path(end.LOADER.sdk()["MINDSPORE_LITE_ROOT"])
    root = tmp_path / "mindspore-lite-2.0.0-linux-x64"
    program = root / vendor.PLACE
    program.parent.mkdir(parents=True)
    program.write_text(
        f'#!/bin/sh\necho "$LD_LIBRARY_PATH $*" >> {root}/calls\n'
        f'exec {environment.python} -I {STAND_IN} "$@"\n'
    )
    program.chmod(0o755)
    runtime = root / "runtime"
    (runtime / "lib").mkdir(parents=True)
    (runtime / "include").symlink_to(wheel / "include")
    (tmp_path / "empty.cpp").touch()
    names = ("mindspore_c*", "mslite_converter_plugin", "opencv_*", "mindspore_glog")
    found = [path for name in names for path in (wheel / "lib").glob(f"lib{name}.so*")]
    run_path = f"-Wl,--no-as-needed,--disable-new-dtags,-rpath,{wheel / 'lib'}"
    subprocess.run(
        [
            *(need_tool("g++"), "-shared", tmp_path / "empty.cpp", run_path, f"-L{wheel / 'lib'}"),
            *(f"-l:{path.name}" for path in sorted(found)),
            *("-Wl,-soname,libmindspore-lite.so", "-o", runtime / "lib" / "libmindspore-lite.so"),
        ],
        check=True,
    )
    need_tool("cmake")
    monkeypatch.setenv("WHEEL_LIBRARIES", str(wheel / "lib"))
    monkeypatch.setenv(vendor.HOME_VARIABLE, str(root))
    return root


def calls(archive: Path) -> list[list[str]]:
    """The words of each conversion, the library path first."""
    lines = (archive / "calls").read_text().splitlines()
    return [line.split() for line in lines if not line.endswith("--help")]


def compile_digits(output: Path, *words: object) -> Done:
    return infc(
        *("compile", DIGITS, "-t", "mindspore-lite", "-o", output, "--loader", "none", *words)
    )


def published(done: Done, output: Path) -> Bundle:
    assert done.status == ExitCode.DONE, done.err
    return open_bundle(output / "digits-mindspore-lite")


def test_it_is_preferred_and_verified_through_its_own_runtime(
    archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = published(compile_digits(tmp_path / "vendor"), tmp_path / "vendor")
    ((libraries, *words),) = calls(archive)
    assert libraries.split(os.pathsep)[0] == str(archive / "tools" / "converter" / "lib")
    assert {"--fmk=ONNX", "--inputDataFormat=NCHW", "--fp16=off"} <= set(words)
    assert {"--encryption=false", "--saveType=MINDIR_LITE"} <= set(words)
    notes = bundle.manifest["artifact"]["notes"]
    assert notes["converter"] == "converter_lite"
    assert notes["versions"] == {"mindspore-lite": "2.0.0"}
    assert bundle.manifest["toolchain"]["mindspore-lite"] == "2.0.0"
    assert bundle.manifest["verification"]["verdict"] == "passed"
    assert infc("verify", bundle.path).status == ExitCode.DONE
    timed = infc("bench", bundle.path, "--runs", "2", "--json")
    assert timed.status == ExitCode.DONE, timed.err
    assert timed.document["runs"] == 2
    assert timed.document["through"] == "runtime"
    # The wheel's converter makes the same file, and its runtime runs the vendor's.
    monkeypatch.delenv(vendor.HOME_VARIABLE)
    own = published(compile_digits(tmp_path / "wheel"), tmp_path / "wheel")
    assert own.entry.read_bytes() == bundle.entry.read_bytes()
    assert infc("verify", bundle.path).status == ExitCode.DONE


def test_two_builds_are_byte_identical(archive: Path, tmp_path: Path) -> None:
    made = []
    for name in ("here", "a longer way"):
        bundle = published(compile_digits(tmp_path / name, "--no-verify"), tmp_path / name)
        files = sorted(p for p in bundle.path.rglob("*") if p.is_file())
        made.append({str(p.relative_to(bundle.path)): p.read_bytes() for p in files})
    assert made[0] == made[1]


def test_what_its_runtime_answers_wrongly_is_not_published(archive: Path, tmp_path: Path) -> None:
    """The stand-in is made to convert another model: one that negates every weight."""
    model = onnx.load(DIGITS)
    for tensor in model.graph.initializer:
        if tensor.data_type == onnx.TensorProto.FLOAT:
            values = -onnx.numpy_helper.to_array(tensor)
            tensor.CopyFrom(onnx.numpy_helper.from_array(values, tensor.name))
    lie = tmp_path / "lie"
    wrong = tmp_path / "wrong.onnx"
    onnx.save(model, wrong)
    bundle = infc(
        *("compile", wrong, "-t", "mindspore-lite", "-o", lie, "--loader", "none", "--no-verify")
    )
    assert bundle.status == ExitCode.DONE, bundle.err
    program = archive / vendor.PLACE
    lying = lie / "wrong-mindspore-lite" / "model" / "model.ms"
    program.write_text(
        "#!/bin/sh\n"
        f'for word in "$@"; do case "$word" in --outputFile=*) cp {lying} "${{word#*=}}.ms";;'
        " esac; done\necho CONVERT RESULT SUCCESS:0\n"
    )
    done = compile_digits(tmp_path / "o")
    assert done.status == ExitCode.VERIFICATION_FAILED
    assert done.err.startswith("error[E602]: ")
    assert not (tmp_path / "o" / "digits-mindspore-lite").exists()


def test_precisions_go_to_it_as_flags_and_a_configuration(archive: Path, tmp_path: Path) -> None:
    fixed = ("--input", "image=1x1x8x8")
    done = compile_digits(tmp_path / "h", "--precision", "fp16", *fixed)
    half = published(done, tmp_path / "h")
    assert "--fp16=on" in calls(archive)[-1]
    samples = np.random.default_rng(0).random((24, 1, 8, 8)).astype(np.float32)
    np.savez(tmp_path / "samples.npz", image=samples)
    data = ("--precision", "int8", "--calibration", tmp_path / "samples.npz")
    full = published(compile_digits(tmp_path / "q", *fixed, *data), tmp_path / "q")
    (configuration,) = [w for w in calls(archive)[-1] if w.startswith("--configFile=")]
    assert configuration.endswith("converter.cfg")
    assert full.entry.stat().st_size < half.entry.stat().st_size


def test_a_refusal_is_the_vendors_own_words(archive: Path, tmp_path: Path) -> None:
    (archive / vendor.PLACE).write_text(
        "#!/bin/sh\necho '[ERROR] LITE(1): cannot do this'\necho '[ERROR] ret -1'\nexit 255\n"
    )
    done = compile_digits(tmp_path / "o")
    assert (done.status, done.err[:12]) == (ExitCode.BUILD_FAILED, "error[E204]:")
    assert "cannot do this" in done.err
    assert "ret -1" not in done.err


def test_success_without_a_file_is_none(archive: Path, tmp_path: Path) -> None:
    (archive / vendor.PLACE).write_text("#!/bin/sh\necho CONVERT RESULT SUCCESS:0\n")
    done = compile_digits(tmp_path / "o")
    assert (done.status, done.err[:12]) == (ExitCode.BUILD_FAILED, "error[E204]:")


def test_on_the_path_it_brings_its_archive(
    archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(vendor.HOME_VARIABLE)
    monkeypatch.setenv("PATH", f"{(archive / vendor.PLACE).parent}{os.pathsep}{os.environ['PATH']}")
    assert vendor.find() == archive / vendor.PLACE
    assert end.LOADER.sdk() == {"MINDSPORE_LITE_ROOT": str(archive)}
    assert end.worker(look_up("mindspore-lite")).runner is not None
    # Not in an archive: nothing is taken for one that is none.
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "converter_lite").symlink_to(archive / vendor.PLACE)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")
    assert vendor.find() == tmp_path / "bin" / "converter_lite"
    assert vendor.archive() is None


def test_a_toolchain_that_the_user_names_wins(archive: Path, tmp_path: Path) -> None:
    done = compile_digits(tmp_path / "o", "--toolchain", "mindspore-lite=mindspore-lite")
    assert "converter" not in published(done, tmp_path / "o").manifest["artifact"]["notes"]
    assert not (archive / "calls").exists()


def test_a_converter_without_any_runtime(
    archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (archive / "runtime" / "lib" / "libmindspore-lite.so").unlink()
    assert end.worker(look_up("mindspore-lite")).runner is not None  # the wheel's
    monkeypatch.setenv("INFC_HOME", str(tmp_path / "empty"))
    with pytest.raises(InfcError) as caught:
        end.worker(look_up("mindspore-lite"))
    assert [d.code for d in caught.value.diagnostics] == ["E501"]


@pytest.mark.parametrize(
    "data", [b"", b"\0" * 4 + b"ORTM", struct.pack("<I4s", 1 << 20, b"MSL2")], ids=len
)
def test_a_file_that_is_no_model_has_no_release(data: bytes) -> None:
    with pytest.raises(BackEndError):
        vendor.release_of(data)


def model_of(release: bytes) -> bytes:
    """A flatbuffer whose root table has one field, the second, a string."""
    table = struct.pack("<4H", 8, 8, 0, 4)
    root = struct.pack("<iI", len(table), 4)
    text = struct.pack("<I", len(release)) + release + b"\0"
    return struct.pack("<I4s", 8 + len(table), b"MSL2") + table + root + text


def test_the_release_is_read_off_the_file_or_the_archives_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert vendor.release_of(model_of(b"MindSpore Lite 2.3.0rc1")) == "2.3.0rc1"
    assert vendor.release_of(model_of(b"")) == vendor.FIRST_RELEASE
    program = tmp_path / "mindspore-lite-2.4.10-linux-x64" / vendor.PLACE
    program.parent.mkdir(parents=True)
    program.touch(mode=0o755)
    monkeypatch.setenv(vendor.HOME_VARIABLE, str(tmp_path / "mindspore-lite-2.4.10-linux-x64"))
    assert vendor.release_of(model_of(b"")) == "2.4.10"
    assert vendor.release_of(model_of(b"MindSpore Lite 2.3.1")) == "2.3.1"
