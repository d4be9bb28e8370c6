"""Hostile files of other frameworks, through the command line: one diagnostic, nothing run."""

from __future__ import annotations

import io
import json
import os
import pickle
import random
import re
import tarfile
import zipfile
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import container_files
import pytest
from command import Done, infc, write_model
from conftest import missing
from container_fuzzing import run_case

from infc.diagnostics import CODES

VERBS = ("inspect", "compile", "optimize", "verify")


class Payload:
    """A pickle of it runs `code` when it is loaded; infc never does."""

    def __init__(self, code: str) -> None:
        self.code = code

    def __reduce__(self) -> object:
        return exec, (self.code,)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of an ONNX model; `verify --source` holds other files against it."""
    folder = tmp_path_factory.mktemp("bundle")
    done = infc(
        "compile", write_model(folder / "small.onnx"), "--target", "cpu", "-o", folder / "out"
    )
    assert done.status == 0, done.err
    return next(path.parent for path in (folder / "out").rglob("manifest.json"))


def run(verb: str, path: Path, bundle: Path, *more: str) -> Done:
    out = path.parent / "results"
    words: dict[str, tuple[object, ...]] = {
        "inspect": ("inspect", path),
        "compile": ("compile", path, "-o", out, *more),
        "optimize": ("optimize", path, "-o", out / "o.onnx", *more),
        "verify": ("verify", bundle, "--source", path, *more),
    }
    return infc(*words[verb])


def check(done: Done, code: str) -> None:
    assert re.findall(r"^error\[(E\d+)\]: ", done.err, re.MULTILINE) == [code], done.err
    assert done.status == CODES[code].exit_code
    assert "Traceback" not in done.err
    assert "\x1b" not in done.err


def zipped(*entries: tuple[str, bytes], method: int = zipfile.ZIP_STORED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name, data in entries:
            archive.writestr(name, data)
    return buffer.getvalue()


# ---------------------------------------------------------------- pickles


PLAIN = pickle.dumps({"epoch": 1}, protocol=2)
SHOWN = (b"version", b"3\n")


def torch_zip(*entries: tuple[str, bytes]) -> bytes:
    return zipped(*((f"m/{name}", data) for name, data in entries), ("m/version", b"3\n"))


def legacy(bad: bytes, place: int) -> bytes:
    rows = [0x1950A86A20F9469CFC6C, 1001, {"little_endian": True}, {}, []]
    parts = [pickle.dumps(row, protocol=2) for row in rows]
    parts[place] = bad
    return b"".join(parts)


def tarred(*members: tuple[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:") as archive:
        for name, data in members:
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return buffer.getvalue()


def payload_config(bad: bytes) -> bytes:
    config = {"config": {"w": {"path_name": "weight_0", "use_pickle": True}}}
    return torch_zip(
        ("archive_format", b"pt2"),
        ("models/model.json", b"{}"),
        ("data/weights/model_weights_config.json", json.dumps(config).encode()),
        ("data/weights/weight_0", bad),
    )


PICKLES: dict[str, Callable[[bytes], bytes]] = {
    "a checkpoint": lambda bad: torch_zip(("data.pkl", bad)),
    "TorchScript": lambda bad: torch_zip(("data.pkl", bad), ("constants.pkl", PLAIN)),
    "TorchScript's constants": lambda bad: torch_zip(
        ("data.pkl", PLAIN), ("constants.pkl", bad), ("code/__torch__.py", b"")
    ),
    "TorchScript's example inputs": lambda bad: torch_zip(
        ("data.pkl", PLAIN), ("constants.pkl", PLAIN), ("traced_inputs.pkl", bad)
    ),
    "torch.export's example inputs": lambda bad: torch_zip(
        ("archive_format", b"pt2"), ("models/model.json", b"{}"),
        ("data/sample_inputs/model.pt", torch_zip(("data.pkl", bad))),
    ),
    "torch.export's weights": payload_config,
    "an older torch.export": lambda bad: zipped(
        ("serialized_exported_program.json", b"{}"), ("version", b"5.3"),
        ("serialized_state_dict.pt", torch_zip(("data.pkl", bad))),
    ),
    "a bare pickle": lambda bad: bad,
    "a legacy checkpoint": lambda bad: legacy(bad, 3),
    "a legacy checkpoint's system": lambda bad: legacy(bad, 2),
    "a legacy checkpoint's keys": lambda bad: legacy(bad, 4),
    "the tar format": lambda bad: tarred(("sys_info", PLAIN), ("pickle", bad)),
}  # fmt: skip


@pytest.mark.parametrize("protocol", [0, 2, 4])
@pytest.mark.parametrize("what", PICKLES)
def test_pickle_is_never_run(
    what: str, protocol: int, tmp_path: Path, bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    mark = tmp_path / "pwned"
    bad = pickle.dumps({"x": Payload(f"open({str(mark)!r}, 'w')")}, protocol=protocol)
    if what in ("a bare pickle", "a legacy checkpoint") and protocol == 0:
        bad = b"\x80\x02" + bad  # else nothing says that it is a pickle
    path = tmp_path / "model.pt"
    path.write_bytes(PICKLES[what](bad))
    for verb in VERBS:
        done = run(verb, path, bundle)
        if verb != "inspect":
            check(done, "E101" if what == "the tar format" else "E113")
            assert what == "the tar format" or "exec`" in done.err
        elif done.status:
            check(done, "E117")  # the containers made here hold no model
        else:
            assert "exec`" in done.out
        assert not mark.exists(), f"{verb} ran the pickle"
    assert [p.name for p in tmp_path.iterdir()] == ["model.pt"]


# ---------------------------------------------------------------- Keras


def keras_code(config: dict[str, Any]) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        container_files.keras_archive(folder / "m.keras", config)
        return folder / "m.keras"

    return make


def keras_h5(config: dict[str, Any]) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        container_files.keras_h5(folder / "m.h5", config)
        return folder / "m.h5"

    return make


def with_layer(layer: dict[str, Any]) -> dict[str, Any]:
    config = container_files.functional_config()
    config["config"]["layers"].insert(1, layer)
    return config


def lambda_layer(mark: str = "pwned") -> dict[str, Any]:
    """As Keras 3 writes it: bytecode, marshalled, in base 64."""
    import base64
    import marshal

    code = compile(f"open({mark!r}, 'w')", "<lambda>", "eval")
    held = base64.b64encode(marshal.dumps(code)).decode()
    function = {"class_name": "__lambda__", "config": {"code": held, "defaults": None}}
    return {"class_name": "Lambda", "config": {"name": "evil", "function": function}}


def legacy_lambda() -> dict[str, Any]:
    config = {"name": "evil", "function": ["4wEAAAA=", None, None], "function_type": "lambda"}
    return {"class_name": "Lambda", "config": config}


def gadget(module: str, name: str) -> dict[str, Any]:
    """CVE-2025-1550: any function may be named as a class, its arguments as the configuration."""
    row = {"module": module, "class_name": name, "registered_name": None}
    return {**row, "config": {"command": "touch pwned", "name": "evil"}}


KERAS: dict[str, tuple[Callable[[Path], Path], str]] = {
    "a Lambda": (keras_code(with_layer(lambda_layer())), "Lambda layer evil"),
    "a Lambda of Keras 2": (keras_h5(with_layer(legacy_lambda())), "Lambda layer evil"),
    "a Lambda inside an argument": (
        keras_code(with_layer({"class_name": "RNN", "config": {"cell": [lambda_layer()]}})),
        "Lambda layer evil",
    ),
    "os.system": (keras_code(with_layer(gadget("os", "system"))), "os.system"),
    "subprocess in HDF5": (keras_h5(with_layer(gadget("subprocess", "run"))), "subprocess.run"),
    "a download": (keras_code(with_layer(gadget("keras.utils", "get_file"))), "get_file"),
    "switching off safe mode": (
        keras_code(with_layer(gadget("keras.config", "enable_unsafe_deserialization"))), "enable_"
    ),
    "the loader itself": (
        keras_code(with_layer(gadget("keras.src.saving.saving_lib", "load_model"))), "load_model"
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", KERAS)
def test_keras_runs_nothing(
    what: str, tmp_path: Path, bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if find_spec("h5py") is None:
        missing("the Python module h5py")
    monkeypatch.chdir(tmp_path)
    make, shown = KERAS[what]
    path = make(tmp_path)
    for verb in VERBS:
        done = run(verb, path, bundle)
        if verb == "inspect":
            assert done.status == 0
            assert shown in done.out
        else:
            check(done, "E113")
            assert shown in done.err
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize(
    "text",
    [
        "!!python/object/apply:os.system ['touch pwned']\n",
        "backend: tensorflow\nclass_name: !!python/name:os.system\n",
        "class_name: Model\nconfig: !!python/object/new:os.system ['touch pwned']\n",
    ],
)
def test_yaml_is_only_text(
    text: str, tmp_path: Path, bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "model.yaml"
    path.write_text(text)
    for verb in VERBS:
        check(run(verb, path, bundle), "E101")
    assert [p.name for p in tmp_path.iterdir()] == ["model.yaml"]


# ---------------------------------------------------------------- archives and folders


def bytes_of(name: str, data: Callable[[], bytes]) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        path = folder / name
        path.write_bytes(data())
        return path

    return make


def nested_bomb() -> bytes:
    inner = zipped(("m/data.pkl", bytes(100 << 20)), method=zipfile.ZIP_DEFLATED)
    return torch_zip(
        ("archive_format", b"pt2"), ("models/model.json", b"{}"), ("x/model.pt", inner)
    )


def matryoshka() -> bytes:
    data = torch_zip(("data.pkl", PLAIN))
    for _ in range(20):
        data = torch_zip(("data.pkl", PLAIN), ("x/model.pt", data))
    return data


def linked_weights(kind: str) -> Callable[[Path], Path]:
    """An HDF5 file that leads to another, or to nothing that is there."""

    def make(folder: Path) -> Path:
        import h5py
        import numpy as np

        container_files.keras_h5(folder / "m.h5")
        with h5py.File(folder / "m.h5", "r+") as file:
            group = file["model_weights"]
            if kind == "a link":
                group["secret"] = h5py.ExternalLink("/etc/passwd", "/")
            elif kind == "external storage":
                group.create_dataset(
                    "secret", shape=(100,), dtype=np.uint8, external=[("/etc/passwd", 0, 100)]
                )
            elif kind == "a virtual dataset":
                layout = h5py.VirtualLayout(shape=(100,), dtype=np.uint8)
                layout[:] = h5py.VirtualSource("/etc/passwd", "x", shape=(100,))
                group.create_virtual_dataset("secret", layout)
            elif kind == "a bomb":
                group.create_dataset(
                    "zeros", shape=(1 << 28,), dtype=np.float64, chunks=(1 << 20,), compression=9
                )
        return folder / "m.h5"

    return make


def in_keras_archive(kind: str) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        weights = linked_weights(kind)(folder)
        container_files.keras_archive(folder / "m.keras")
        data = weights.read_bytes()
        weights.unlink()
        with zipfile.ZipFile(folder / "m.keras") as archive:
            rows = [(name, archive.read(name)) for name in archive.namelist()]
        rows = [(name, data if name.endswith(".h5") else old) for name, old in rows]
        (folder / "m.keras").write_bytes(zipped(*rows))
        return folder / "m.keras"

    return make


def saved_model_with_link(folder: Path) -> Path:
    container_files.saved_model(folder / "m")
    (folder / "m" / "assets").symlink_to("/etc")
    return folder / "m"


def saved_model_with_fifo(folder: Path) -> Path:
    container_files.saved_model(folder / "m")
    os.mkfifo(folder / "m" / "variables" / "fifo")
    return folder / "m"


def saved_model_with_asset(folder: Path) -> Path:
    container_files.saved_model(folder / "m")
    file = folder / "m" / "saved_model.pb"
    file.write_bytes(file.read_bytes().replace(b"words.txt", b"../../pwd"))
    return folder / "m"


UNSAFE: dict[str, tuple[Callable[[Path], Path], str]] = {
    "a bomb in a checkpoint": (
        bytes_of("m.pt", lambda: zipped(
            ("m/data.pkl", PLAIN), ("m/data/0", bytes(200 << 20)), method=zipfile.ZIP_DEFLATED
        )), "unpack",
    ),
    "a bomb in an archive in an archive": (bytes_of("m.pt2", nested_bomb), "unpack"),
    "an archive in an archive in an archive": (bytes_of("m.pt", matryoshka), "in an archive"),
    "a path that leads up": (
        bytes_of("m.pt", lambda: torch_zip(("data.pkl", PLAIN), ("../../evil", b"x"))), "outside"
    ),
    "an absolute path": (
        bytes_of("m.pt", lambda: zipped(("m/data.pkl", PLAIN), ("/etc/evil", b"x"))), "outside"
    ),
    "two folders": (
        bytes_of("m.pt", lambda: zipped(("m/data.pkl", PLAIN), ("n/data.pkl", PLAIN))), "beside"
    ),
    "two pickles that differ by case": (
        bytes_of("m.pt", lambda: torch_zip(("data.pkl", PLAIN), ("DATA.PKL", PLAIN))), "twice"
    ),
    "a path that leads up in a Keras archive": (
        bytes_of("m.keras", lambda: zipped(
            ("config.json", b"{}"), ("metadata.json", b"{}"), ("../evil", b"x")
        )), "outside",
    ),
    "HDF5 with a link": (linked_weights("a link"), "another file"),
    "HDF5 with external storage": (linked_weights("external storage"), "another file"),
    "HDF5 with a virtual dataset": (linked_weights("a virtual dataset"), "other datasets"),
    "HDF5 that unpacks into gigabytes": (linked_weights("a bomb"), "would take more"),
    "a Keras archive with a link in its weights": (in_keras_archive("a link"), "another file"),
    "a Keras archive with a bomb for weights": (in_keras_archive("a bomb"), "would take more"),
    "a SavedModel with a symbolic link": (saved_model_with_link, "leads out"),
    "a SavedModel with a fifo": (saved_model_with_fifo, "neither a file nor a folder"),
    "a SavedModel with an asset outside": (saved_model_with_asset, "asset"),
}  # fmt: skip


@pytest.mark.timeout(120)
@pytest.mark.parametrize("what", UNSAFE)
def test_unsafe_container(what: str, tmp_path: Path, bundle: Path) -> None:
    if ("HDF5" in what or "Keras" in what) and find_spec("h5py") is None:
        missing("the Python module h5py")
    make, reason = UNSAFE[what]
    path = make(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    for verb in VERBS:
        done = run(verb, path, bundle)
        check(done, "E116")
        assert reason in done.err
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("member", ["../evil", "/etc/evil"])
def test_tar_that_leads_outside(member: str, tmp_path: Path) -> None:
    path = tmp_path / "m.pth"
    path.write_bytes(tarred(("sys_info", PLAIN), (member, b"x")))
    check(infc("inspect", path), "E116")


def test_tar_with_links(tmp_path: Path) -> None:
    path = tmp_path / "m.pth"
    for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE):
        with tarfile.open(path, "w:") as archive:
            archive.addfile(tarfile.TarInfo("sys_info"))
            member = tarfile.TarInfo("pickle")
            member.type, member.linkname = kind, "/etc/passwd"
            archive.addfile(member)
        check(infc("inspect", path), "E116")


# ---------------------------------------------------------------- damage


@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", container_files.SINGLE_FILES)
def test_truncated_anywhere(name: str, tmp_path: Path) -> None:
    file, _, needed = container_files.FILES[name]
    if needed and find_spec(needed) is None:
        missing(f"the Python module {needed}")
    data = container_files.write(name, tmp_path).read_bytes()
    path = tmp_path / f"cut-{file}"
    outcomes = set()
    for end in sorted({*range(0, len(data), max(1, len(data) // 50)), len(data) - 1}):
        path.write_bytes(data[:end])
        outcome, detail = run_case(path)
        assert outcome in ("ok", "E101", "E102", "E113", "E116", "E117"), f"{end}: {detail}"
        outcomes.add(outcome)
    assert outcomes & {"E117", "E102"}, outcomes


@pytest.mark.parametrize("name", ["torch-state-dict", "torchscript-traced", "keras", "tflite"])
def test_truncated_through_the_command_line(name: str, tmp_path: Path, bundle: Path) -> None:
    file, _, needed = container_files.FILES[name]
    if needed and find_spec(needed) is None:
        missing(f"the Python module {needed}")
    path = container_files.write(name, tmp_path)
    data = path.read_bytes()
    for part in (0.3, 0.6, 0.95):
        path.write_bytes(data[: int(len(data) * part)])
        for verb in VERBS:
            check(run(verb, path, bundle), "E117")
    assert [p.name for p in tmp_path.iterdir()] == [file]


def test_hdf5_on_which_the_library_goes_round_in_circles(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An object of the global heap whose size is negative; HDF5 1.14 never comes back."""
    if find_spec("h5py") is None:
        missing("the Python module h5py")
    from infc.frontends.containers import hdf5

    monkeypatch.setattr(hdf5, "CPU_S", 1)
    path = container_files.write("keras-h5", tmp_path)
    data = bytearray(path.read_bytes())
    size = data.index(b"GCOL") + 24
    data[size : size + 8] = (2**64 - 16).to_bytes(8, "little")
    path.write_bytes(data)
    check(infc("inspect", path), "E117")
    check(infc("compile", path, "-o", tmp_path / "out"), "E117")


def test_hdf5_whose_groups_contain_each_other(tmp_path: Path) -> None:
    if find_spec("h5py") is None:
        missing("the Python module h5py")
    import h5py

    path = container_files.write("keras-h5", tmp_path)
    with h5py.File(path, "r+") as file:
        file["model_weights/again"] = file["model_weights"]
        file["model_weights/dense/up"] = file["/"]
        file["model_weights/soft"] = h5py.SoftLink("/nowhere")
    assert infc("inspect", path, "--json").document["parameters"]["tensors"] == 2


def test_pickle_that_would_fill_the_memory(tmp_path: Path) -> None:
    """One opcode, and the unpickler of Python allocates 32 GB for its memo."""
    path = tmp_path / "m.pt"
    path.write_bytes(torch_zip(("data.pkl", b"\x80\x02}r\xff\xff\xff\xff.")))
    assert run_case(path) == ("ok", "")


def test_names_cannot_steer_the_terminal(tmp_path: Path) -> None:
    rng = random.Random(0)
    names = ["\x1b[2J", "\u202e evil", "a\nb", "\ud800", "x" * 5000, f"{rng.random()}\0"]
    header = {n: {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]} for n in names}
    text = json.dumps(header).encode()
    path = tmp_path / "m.safetensors"
    path.write_bytes(len(text).to_bytes(8, "little") + text)
    done = infc("inspect", path)
    assert done.status == 0
    assert not [c for c in done.out if not c.isprintable() and c != "\n"]
    assert max(map(len, done.out.splitlines())) < 500
    assert len(infc("inspect", path, "--json").document["tensors"]) == len(names)
