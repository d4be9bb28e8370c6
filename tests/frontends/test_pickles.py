"""What a pickle would run is known before anything is loaded."""

from __future__ import annotations

import collections
import io
import os
import pickle
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest
from conftest import missing

from infc.diagnostics import InfcError
from infc.frontends.containers import pickle_machine
from infc.frontends.containers.pickle_machine import MalformedPickleError, Table, follow
from infc.frontends.containers.pickles import (
    MAGIC,
    NUMPY_GLOBALS,
    TORCH_GLOBALS,
    require_safe,
    unsafe_globals,
    unsafe_legacy_globals,
)


def found(data: bytes) -> list[str]:
    return unsafe_globals(io.BytesIO(data))


class Payload:
    """Pickles as a call of `os.system`, which is never made here."""

    def __reduce__(self) -> object:
        return os.system, ("touch pwned",)


class Built:
    """Pickles with a state, through NEWOBJ and BUILD."""

    def __init__(self) -> None:
        self.x = 1


PLAIN = {
    "numbers": [1, -1, 2**70, 1.5, True, None, 2j],
    "texts": ["a", b"b", bytearray(b"c"), "\u20ac" * 300],
    "nested": {"a": [(1,), (1, 2), (1, 2, 3), (1, 2, 3, 4), {5, 6}, frozenset((7,))]},
    "ordered": collections.OrderedDict(a=1),
}


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("what", PLAIN)
def test_plain_data_is_safe_in_every_protocol(what: str, protocol: int) -> None:
    data = pickle.dumps(PLAIN[what], protocol=protocol)
    odd = ["builtins.frozenset"] if what == "nested" and protocol < 4 else []
    assert found(data) == odd


@pytest.mark.parametrize("protocol", range(6))
def test_calls_are_found_in_every_protocol(protocol: int) -> None:
    assert found(pickle.dumps([1, {"a": Payload()}], protocol=protocol)) == ["posix.system"]
    built = found(pickle.dumps(Built(), protocol=protocol))
    assert f"{__name__}.Built" in built


@pytest.mark.parametrize("protocol", range(2, 6))
def test_numpy_arrays_are_safe(protocol: int) -> None:
    assert found(pickle.dumps({"w": np.ones((2, 3), np.float32)}, protocol=protocol)) == []
    assert found(pickle.dumps(np.float64(2), protocol=protocol)) == []


ATTACKS: dict[str, tuple[bytes, str]] = {
    "GLOBAL": (b"cos\nsystem\n(S'x'\ntR.", "os.system"),
    "GLOBAL of Python 2": (b"\x80\x02c__builtin__\neval\n(S'1'\ntR.", "builtins.eval"),
    "INST": (b"(S'x'\nios\nsystem\n.", "os.system"),
    "OBJ": (b"(cos\nsystem\nS'x'\no.", "os.system"),
    "NEWOBJ": (b"\x80\x02csubprocess\nPopen\n(S'x'\nt\x81.", "subprocess.Popen"),
    "NEWOBJ_EX": (b"\x80\x04\x8c\x02os\x8c\x06system\x93)}\x92.", "os.system"),
    "STACK_GLOBAL": (b"\x80\x04\x8c\x02os\x8c\x06system\x93\x8c\x01x\x85R.", "os.system"),
    "names by the memo": (
        b"\x80\x04\x8c\x06system\x940\x8c\x02os\x94h\x01h\x00\x93\x8c\x01x\x85R.", "os.system"
    ),
    "names in disorder": (
        b"\x80\x04\x8c\x02os\x8c\x06system\x8c\x05decoy0\x93.", "os.system"
    ),
    "names through DUP": (b"\x80\x04\x8c\x02os2\x8c\x01z00\x8c\x06system\x93.", "os.system"),
    "an import alone": (b"cos\nsystem\n.", "os.system"),
    "a dotted name": (
        b"\x80\x04\x8c\x05torch\x8c\x10serialization.os\x93.", "torch.serialization.os"
    ),
    "a name with a space": (b"cos\nsystem now\n(tR.", "os.system now"),
    "a module with a space": (b"cos path\nsystem\n(tR.", "a global whose name has spaces"),
    "a computed name": (b"\x80\x04\x8c\x02os(\x8c\x06systemt\x93.", "whose name is computed"),
    "EXT1": (b"\x80\x02\x82\x07.", "extension code 7"),
    "EXT2": (b"\x80\x02\x83\x07\x01.", "extension code 263"),
    "EXT4": (b"\x80\x02\x84\x07\x00\x01\x00.", "extension code 65543"),
    "a call of what a call returned": (
        b"\x80\x02ccollections\nOrderedDict\n)R)R.", "a call of something computed"
    ),
    "a call of a storage": (b"\x80\x02K\x01Q)R.", "a call of something computed"),
    "state for a class": (b"\x80\x02ccollections\nOrderedDict\n}b.", "is no object"),
    "entries for a class": (b"\x80\x02ccollections\nOrderedDict\nK\x01K\x02s.", "is no dict"),
    "items for a class": (b"\x80\x02ccollections\nOrderedDict\nK\x01a.", "is no list"),
    "cut off behind the call": (b"cos\nsystem\n(S'x'\ntR", "os.system"),
    "garbage behind the call": (b"cos\nsystem\n(S'x'\ntR\xff\xff", "os.system"),
    "an opcode that is none": (b"\x80\x02\xff.", "cannot be followed"),
    "an empty stack": (b".", "cannot be followed"),
    "a memo entry that is not there": (b"h\x07.", "cannot be followed"),
    "a length of exabytes": (b"\x80\x04\x8e" + b"\xff" * 8, "cannot be followed"),
    "an int of many digits": (b"I" + b"9" * 10000 + b"\n.", "cannot be followed"),
    "nothing": (b"", "cannot be followed"),
}  # fmt: skip


@pytest.mark.parametrize("what", ATTACKS)
def test_attack_is_seen(what: str) -> None:
    data, expected = ATTACKS[what]
    assert any(expected in name for name in found(data)), found(data)


def test_attack_behind_the_magic_number_is_seen() -> None:
    parts = [pickle.dumps(part, protocol=2) for part in (MAGIC, 1001, {"little_endian": True})]
    safe = [*parts, pickle.dumps({}, protocol=2), pickle.dumps(["0"], protocol=2)]
    assert unsafe_legacy_globals(io.BytesIO(b"".join(safe) + bytes(100))) == []
    for place in range(1, 5):
        rows = list(safe)
        rows[place] = pickle.dumps(Payload(), protocol=2)
        assert unsafe_legacy_globals(io.BytesIO(b"".join(rows))) == ["posix.system"]
    assert unsafe_legacy_globals(io.BytesIO(b"".join(safe[:4])))


def test_deep_nesting_is_followed() -> None:
    depth = 200_000
    assert found(b"\x80\x02" + b"]" * depth + b"a" * (depth - 1) + b".") == []
    assert found(b"\x80\x02)" + b"\x85" * depth + b".") == []
    assert found(b"(" * depth + b"t" * depth + b".") == []


def test_memo_index_allocates_nothing() -> None:
    assert found(b"\x80\x02K\x01r" + struct.pack("<I", 2**32 - 1) + b".") == []


def test_shared_values_are_not_unfolded() -> None:
    data = b"\x80\x02]q\x00" + b"".join(
        b"](h%ch%ceq%c" % (i, i, i + 1) for i in range(100)
    )  # 2 ** 100 leaves
    assert found(data + b".") == []


def test_a_long_pickle_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pickle_machine, "MAX_OPCODES", 1000)
    (reason,) = found(b"\x80\x02" + b"N0" * 2000 + b"N.")
    assert "more than 1,000 opcodes" in reason


def test_values_are_what_was_pickled() -> None:
    value = follow(io.BytesIO(pickle.dumps({"a": (1, [2, "x"]), "b": None}, protocol=2))).value
    assert isinstance(value, Table)
    assert value.pairs == [("a", (1, [2, "x"])), ("b", None)]
    with pytest.raises(MalformedPickleError):
        follow(io.BytesIO(b"\x80\x02K\x01"))


def test_allow_list_is_that_of_torch() -> None:
    torch = pytest.importorskip("torch")
    from torch._weights_only_unpickler import _get_allowed_globals  # type: ignore[attr-defined]

    if not torch.__version__.startswith("2.13"):
        missing("torch 2.13, whose list this is")
    theirs = set(_get_allowed_globals())
    assert theirs <= TORCH_GLOBALS
    assert {name for name in TORCH_GLOBALS - theirs if "Tensor" not in name} == set()
    assert not any(name.startswith("torch.") for name in NUMPY_GLOBALS)


def torch_zip(path: Path, pickled: bytes, *more: tuple[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in (("data.pkl", pickled), ("version", b"3\n"), *more):
            archive.writestr(f"m/{name}", data)
    return path


def test_require_safe_names_the_offenders(tmp_path: Path) -> None:
    bad = pickle.dumps({"a": Payload(), "b": Built()}, protocol=2)
    for path in (torch_zip(tmp_path / "zip.pt", bad), tmp_path / "bare.pt"):
        if not path.exists():
            path.write_bytes(bad)
        with pytest.raises(InfcError) as caught:
            require_safe(path, allow_pickle=False)
        (diagnostic,) = caught.value.diagnostics
        assert diagnostic.code == "E113"
        assert "`posix.system`" in diagnostic.message
        assert "Built`" in diagnostic.message
        assert "--allow-pickle" in diagnostic.help
        require_safe(path, allow_pickle=True)


def test_every_pickle_in_an_archive_is_followed(tmp_path: Path) -> None:
    good, bad = pickle.dumps({}, protocol=2), pickle.dumps(Payload(), protocol=2)
    require_safe(torch_zip(tmp_path / "good.pt", good), allow_pickle=False)
    for name in ("constants.pkl", "traced_inputs.pkl", "data/sample_inputs/model.pt", "x.pt"):
        path = torch_zip(tmp_path / "bad.pt", good, (name, bad))
        with pytest.raises(InfcError, match=r"E113.*posix\.system"):
            require_safe(path, allow_pickle=False)
    inner = torch_zip(tmp_path / "inner.pt", bad).read_bytes()
    path = torch_zip(tmp_path / "outer.pt2", good, ("data/sample_inputs/model.pt", inner))
    with pytest.raises(InfcError, match=r"E113.*posix\.system"):
        require_safe(path, allow_pickle=False)
    config = b'{"config": {"w": {"path_name": "weight_0", "use_pickle": true}}}'
    entries = [("data/weights/model_weights_config.json", config), ("data/weights/weight_0", bad)]
    path = torch_zip(tmp_path / "payload.pt2", good, *entries)
    with pytest.raises(InfcError, match=r"E113.*posix\.system"):
        require_safe(path, allow_pickle=False)


def test_torchscript_may_name_its_own_classes(tmp_path: Path) -> None:
    own = b"\x80\x02c__torch__\nNet\n)\x81}b."
    path = torch_zip(tmp_path / "ts.pt", own, ("constants.pkl", pickle.dumps((), protocol=2)))
    require_safe(path, allow_pickle=False)
    with pytest.raises(InfcError, match=r"E113.*__torch__\.Net"):
        require_safe(torch_zip(tmp_path / "not.pt", own), allow_pickle=False)


def test_what_is_found_safe_is_loaded_by_torch(tmp_path: Path) -> None:
    """Metrics and curves of numpy's lie beside the weights in many checkpoints."""
    torch = pytest.importorskip("torch")
    from infc.frontends.pytorch import checkpoints
    from infc.frontends.sniff import Kind

    held = {"w": torch.ones(2), "best": np.float64(0.9), "n": np.int64(3), "curve": np.ones((3, 2))}
    for zipped, kind in ((True, Kind.TORCH_WEIGHTS), (False, Kind.PICKLE)):
        path = tmp_path / "c.pth"
        torch.save(held, path, _use_new_zipfile_serialization=zipped)
        loaded = checkpoints.read(path, kind, allow_pickle=False)
        assert loaded["best"] == 0.9
        assert loaded["curve"].tolist() == [[1, 1]] * 3
