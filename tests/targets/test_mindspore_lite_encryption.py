"""Encrypted bundles: the vendor's format, the key's way in, and that it leaves no trace."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from command import infc, write_model
from conftest import ROOT
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from infc import model_key, sealing, workers
from infc.bundle import open_bundle
from infc.diagnostics import ExitCode, InfcError
from infc.request import WorkerLimits
from infc.targets import Target, Worker, choose
from infc.targets import mindspore_lite_encryption as encryption

KEY = "303132333435363738394142434445ff"
OTHER = "00112233445566778899aabbccddeeff"
PLAIN = bytes(range(256)) * 40

CONVERT = """
import mindspore_lite as lite

def convert(payload):
    converter = lite.Converter()
    converter.save_type = lite.ModelType.MINDIR_LITE
    converter.input_format = lite.Format.NCHW
    if payload["key"]:
        converter.enable_encryption = True
        converter.encrypt_key = payload["key"]
    converter.convert(lite.FmkType.ONNX, payload["model"], payload["output"])
    return {}

ACTIONS = {"convert": convert}
"""


@pytest.fixture(autouse=True)
def no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (model_key.VARIABLE, model_key.FILE_VARIABLE):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def toolchain(need_back_end: Callable[[str], None]) -> None:
    need_back_end("mindspore-lite")


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    path = tmp_path / "a-secret-place.key"
    path.write_text(f"{KEY}\n")
    return path


def compile_encrypted(folder: Path, key_file: Path, *more: object, loader: str = "none") -> Path:
    model = write_model(folder / "small.onnx")
    done = infc(
        *("compile", model, "-t", "mindspore-lite", "-o", folder / "build", "--loader", loader),
        *("--input", "image=1x3x8x8", "-X", "encrypt=aes-gcm", "-X", f"key-file={key_file}"),
        *more,
    )
    assert done.status == ExitCode.DONE, done.err
    return folder / "build" / "small-mindspore-lite"


@pytest.mark.parametrize("size", [0, 1, 15, 16, 17, 10240])
def test_decrypting_undoes_encrypting(size: int) -> None:
    key = bytes.fromhex(KEY)
    sealed = encryption.encrypt(PLAIN[:size], key)
    assert encryption.decrypt(sealed, key) == PLAIN[:size]
    if size > 8:
        assert PLAIN[:size] not in sealed


def test_a_long_file_goes_into_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encryption, "BLOCK_BYTES", 1000)
    key = bytes.fromhex(KEY)
    sealed = encryption.encrypt(PLAIN, key)
    assert sealed.count(encryption.MAGIC) == 11
    assert encryption.decrypt(sealed, key) == PLAIN
    # Equal parts of a file are told apart by their number: no nonce serves twice.
    repeated = encryption.encrypt(bytes(3000), key)
    nonces = {repeated[28 + i * 1048 :][:12] for i in range(3)}
    assert len(nonces) == 3


def test_the_same_bytes_every_time_and_others_for_another_key_or_file() -> None:
    one, two = bytes.fromhex(KEY), bytes.fromhex(OTHER)
    made = [
        encryption.encrypt(PLAIN, one),
        encryption.encrypt(PLAIN, two),
        encryption.encrypt(PLAIN[::-1], one),
    ]
    assert made[0] == encryption.encrypt(PLAIN, one)
    assert len({sealed[28:40] for sealed in made}) == 3  # nonces


@pytest.mark.parametrize("at", [0, 4, 20, 24, 28, 44, 48, -1])
def test_a_changed_byte_is_noticed(at: int) -> None:
    key = bytes.fromhex(KEY)
    sealed = bytearray(encryption.encrypt(PLAIN, key))
    sealed[at] ^= 1
    refused(lambda: encryption.decrypt(bytes(sealed), key))


@pytest.mark.parametrize("size", [1, 47, 48, 100])
def test_a_file_that_is_cut_short_is_noticed(size: int) -> None:
    key = bytes.fromhex(KEY)
    refused(lambda: encryption.decrypt(encryption.encrypt(PLAIN, key)[:size], key))


def test_another_key_is_noticed() -> None:
    sealed = encryption.encrypt(PLAIN, bytes.fromhex(KEY))
    refused(lambda: encryption.decrypt(sealed, bytes.fromhex(OTHER)))


def test_the_plain_file_is_open_to_the_user_alone_and_only_for_a_while(tmp_path: Path) -> None:
    (target,) = choose(
        ["mindspore-lite"], None, {"encrypt": "aes-gcm", "key-file": str(written(tmp_path, KEY))}
    )
    entry = tmp_path / "model.ms"
    entry.write_bytes(PLAIN)
    sealing.close(entry, target)
    assert PLAIN[:100] not in entry.read_bytes()
    with sealing.opened(entry, target, tmp_path / "scratch") as plain:
        assert plain.read_bytes() == PLAIN
        assert plain.stat().st_mode & 0o777 == 0o600
        assert plain.parent.stat().st_mode & 0o777 == 0o700
    assert list((tmp_path / "scratch").iterdir()) == []


@pytest.mark.parametrize(
    "text",
    ["", "30", KEY + "00", KEY[:-1] + "g", "0x" + KEY[2:], f"{KEY}{OTHER}"],
    ids=["empty", "short", "long", "no-hex", "prefixed", "two"],
)
def test_what_is_no_key_is_refused_and_not_quoted(tmp_path: Path, text: str) -> None:
    error = refused(lambda: model_key.read_key(str(written(tmp_path, text))))
    assert "does not hold a key" in str(error)
    assert len(text) < 3 or text not in "".join(d.render() for d in error.diagnostics)


def test_where_a_key_is_looked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    named = written(tmp_path, KEY)
    monkeypatch.setenv(model_key.FILE_VARIABLE, str(named))
    assert model_key.read_key() == bytes.fromhex(KEY)
    monkeypatch.setenv(model_key.VARIABLE, OTHER)
    assert model_key.read_key() == bytes.fromhex(OTHER)
    assert model_key.read_key(str(named)) == bytes.fromhex(KEY)
    refused(lambda: model_key.read_key(str(tmp_path / "nowhere")))


def test_options_that_make_no_sense(tmp_path: Path, key_file: Path) -> None:
    def code(**options: str) -> str:
        with pytest.raises(InfcError) as caught:
            choose(["mindspore-lite"], None, {k.replace("_", "-"): v for k, v in options.items()})
        return caught.value.diagnostics[0].code

    assert code(encrypt="rot13") == "E205"
    assert code(key_file=str(key_file)) == "E205"
    assert code(encrypt="aes-gcm") == "E706"
    assert code(encrypt="aes-gcm", key_file=str(tmp_path / "nowhere")) == "E706"


def test_the_vendors_own_files_are_read_and_written(tmp_path: Path, toolchain: None) -> None:
    """What the wheel's converter encrypts opens; with its iv the very same file is made of it."""
    model = write_model(tmp_path / "small.onnx", FIXED)
    script = tmp_path / "convert.py"
    script.write_text(CONVERT)

    def convert(name: str, key: str) -> bytes:
        payload = {"model": str(model), "output": str(tmp_path / name), "key": key}
        place = Worker("mindspore-lite", script)
        call = workers.Call(
            "", "convert", payload, tmp_path / "scratch", tmp_path / "log", "the vendor's", place
        )
        workers.call(call, WorkerLimits(timeout_s=120))
        return (tmp_path / f"{name}.ms").read_bytes()

    plain, sealed = convert("plain", ""), convert("sealed", KEY)
    key = bytes.fromhex(KEY)
    assert encryption.decrypt(sealed, key) == plain
    assert encryption.block(plain, AESGCM(key), sealed[28:44]) == sealed
    refused(lambda: encryption.decrypt(sealed, bytes.fromhex(OTHER)))


def test_a_bundle_opens_with_the_key_and_refuses_without(
    tmp_path: Path, key_file: Path, toolchain: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = compile_encrypted(tmp_path, key_file)
    model = (bundle / "model" / "model.ms").read_bytes()
    assert model.startswith(encryption.MAGIC)
    plain = encryption.decrypt(model, bytes.fromhex(KEY))
    assert plain[4:8] == b"MSL2"
    assert open_bundle(bundle).manifest["verification"]["verdict"] == "passed"

    for verb in (("verify", bundle), ("bench", bundle, "--runs", "1")):
        monkeypatch.delenv(model_key.VARIABLE, raising=False)
        without = infc(*verb)
        assert (without.status, without.err[:12]) == (ExitCode.BUILD_FAILED, "error[E706]:")
        monkeypatch.setenv(model_key.VARIABLE, OTHER)
        wrong = infc(*verb)
        assert (wrong.status, wrong.err[:12]) == (ExitCode.BUILD_FAILED, "error[E706]:")
        monkeypatch.setenv(model_key.VARIABLE, KEY)
        assert infc(*verb).status == ExitCode.DONE


@pytest.mark.xdist_group("cpp")
@pytest.mark.parametrize("through", ["cpp", "java"])
def test_a_loader_opens_it_with_the_key_and_refuses_without(
    through: str,
    tmp_path: Path,
    key_file: Path,
    toolchain: None,
    need_tool: Callable[[str], str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for tool in ("cmake", "c++", *(("javac",) if through == "java" else ())):
        need_tool(tool)
    bundle = compile_encrypted(tmp_path, key_file, loader=through)
    project = [p for p in (bundle / "loader").rglob("*") if p.is_file()]
    assert project and not any(key_file.name in p.read_text() for p in project)

    def verify(**environment: object) -> tuple[int, str]:
        for name in (model_key.VARIABLE, model_key.FILE_VARIABLE):
            monkeypatch.delenv(name, raising=False)
        for name, value in environment.items():
            monkeypatch.setenv(name, str(value))
        done = infc("verify", bundle, "--through", through)
        return done.status, done.err

    assert verify(INFC_MODEL_KEY=KEY) == (ExitCode.DONE, "")
    assert verify(INFC_MODEL_KEY_FILE=key_file) == (ExitCode.DONE, "")
    (tmp_path / "torn.key").write_text(KEY[:-1])
    for environment, reason in (
        ({}, "is encrypted, and there is no key: set INFC_MODEL_KEY"),
        ({"INFC_MODEL_KEY": OTHER}, "cannot be decrypted: the key is another one"),
        ({"INFC_MODEL_KEY": KEY + "0"}, "INFC_MODEL_KEY does not hold a key"),
        ({"INFC_MODEL_KEY_FILE": tmp_path / "torn.key"}, "torn.key` does not hold a key"),
        ({"INFC_MODEL_KEY_FILE": tmp_path / "absent"}, "absent` cannot be read"),
    ):
        status, said = verify(**environment)
        assert status == ExitCode.BUILD_FAILED
        assert reason in said
        assert KEY[:-1] not in said


def test_the_key_leaves_no_trace(
    tmp_path: Path, key_file: Path, toolchain: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    call = workers.call

    def spy(job: workers.Call, *rest: Any) -> dict[str, Any]:
        asked.append(json.dumps(job.payload))
        answer = call(job, *rest)
        asked.extend(p.read_text() for p in job.scratch.glob("*.json"))
        return answer

    monkeypatch.setattr(workers, "call", spy)
    bundle = compile_encrypted(tmp_path, key_file, "--verbose")
    assert len(asked) > 6
    traces = (KEY.encode(), bytes.fromhex(KEY), key_file.name.encode())
    for text in asked:
        assert not any(trace in text.encode() for trace in traces)
    files = [p for p in bundle.parent.rglob("*") if p.is_file()]
    assert {"manifest.json", "report.html", "timings.json", "worker.log"} <= {f.name for f in files}
    for file in files:
        assert not any(trace in file.read_bytes() for trace in traces), file
    assert open_bundle(bundle).manifest["target"]["options"] == {"encrypt": "aes-gcm"}
    assert key_file.name not in repr(
        choose(["mindspore-lite"], None, {"encrypt": "aes-gcm", "key-file": str(key_file)})
    )


def test_no_worker_has_the_key_in_its_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "telling.py").write_text(
        "import os\nACTIONS = {'tell': lambda payload: {'names': sorted(os.environ)}}\n"
    )
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")
    monkeypatch.setenv(model_key.VARIABLE, KEY)
    call = workers.Call("telling", "tell", {}, tmp_path / "scratch", tmp_path / "log", "a worker")
    names = workers.call(call, WorkerLimits(timeout_s=60))["names"]
    assert "PATH" in names
    assert model_key.VARIABLE not in names


def test_two_encrypted_builds_are_byte_identical(
    tmp_path: Path, key_file: Path, toolchain: None
) -> None:
    trees = []
    for name in ("here", "a longer way/there"):
        folder = tmp_path / name
        folder.mkdir(parents=True)
        bundle = compile_encrypted(folder, key_file)
        files = sorted(p for p in bundle.rglob("*") if p.is_file())
        trees.append({str(p.relative_to(bundle)): p.read_bytes() for p in files})
    assert trees[0] == trees[1]


def test_nothing_is_encrypted_unasked(tmp_path: Path) -> None:
    (target,) = choose(["mindspore-lite"], None, {})
    entry = tmp_path / "model.ms"
    entry.write_bytes(PLAIN)
    sealing.close(entry, target)
    assert entry.read_bytes() == PLAIN
    with sealing.opened(entry, target, tmp_path) as plain:
        assert plain == entry
    other = Target("cpu", "onnxruntime", "", options={"encrypt": "aes-gcm"})
    with sealing.opened(entry, other, tmp_path) as plain:
        assert plain == entry


def written(folder: Path, text: str) -> Path:
    path = folder / "some.key"
    path.write_text(text)
    return path


def refused(body: Callable[[], object]) -> InfcError:
    with pytest.raises(InfcError) as caught:
        body()
    assert [d.code for d in caught.value.diagnostics] == ["E706"]
    return caught.value


FIXED = """
<ir_version: 8, opset_import: ["" : 17]>
small (float[1,3,8,8] image) => (float[1,4,8,8] scores)
<float[4,3,1,1] w = {0.5,-1,2, 1,1,1, -0.25,0.75,0.1, 0,1,-1}, float[4] b = {0,1,-1,0.5}>
{
  mixed = Conv <kernel_shape = [1, 1], strides = [1, 1], dilations = [1, 1], pads = [0, 0, 0, 0]>
    (image, w, b)
  scores = Relu(mixed)
}
"""


@pytest.mark.xdist_group("cpp")
@pytest.mark.parametrize("encrypt", ["off", "aes-gcm"])
def test_a_loader_finds_the_fp16_weights_of_matmul(
    encrypt: str,
    tmp_path: Path,
    toolchain: None,
    need_tool: Callable[[str], str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The runtime widens them, and lost them unless it had read the file by itself."""
    for tool in ("cmake", "c++"):
        need_tool(tool)
    monkeypatch.setenv(model_key.VARIABLE, KEY)
    digits = ROOT / "examples" / "digits" / "digits.onnx"
    done = infc(
        *("compile", digits, "-t", "mindspore-lite", "-o", tmp_path / "o", "--loader", "cpp"),
        *("--precision", "fp16", "--input", "image=1x1x8x8", "-X", f"encrypt={encrypt}"),
    )
    assert done.status == ExitCode.DONE, done.err
    memory = Path("/dev/shm")
    before = set(memory.iterdir())
    done = infc("verify", tmp_path / "o" / "digits-mindspore-lite", "--through", "cpp")
    assert done.status == ExitCode.DONE, done.err
    assert not [path for path in set(memory.iterdir()) - before if path.name.startswith("infc-")]
