"""TVM for other machines: what compiles for them, and their artifacts run under qemu."""

from __future__ import annotations

import json
import platform
import re
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import weighted
from command import infc
from conftest import ROOT
from tvm_models import build, require_right, small_network, target_of

from infc import building
from infc.diagnostics import InfcError
from infc.targets import BackEndError, choose, cross, look_up, profiles, tvm
from infc.targets.tvm_compiler import settings
from infc.targets.tvm_compiler.cpus import CPUS, HOST
from infc.targets.tvm_compiler.scheduling.halves import part_of

DIGITS = ROOT / "examples" / "digits" / "digits.onnx"
FIXED = ("--input", "image=1x1x8x8")
MACHINES = {"cortex-a72": "aarch64", "armv7": "arm", "riscv64": "riscv64"}
"""A processor of each architecture, and qemu's name for that."""


@pytest.fixture
def tvm_is_there(need_module: Callable[[str], None]) -> None:
    need_module("tvm")


@pytest.fixture
def emulated(
    tvm_is_there: None, need_module: Callable[[str], None], need_tool: Callable[[str], str]
) -> Callable[[str], None]:
    """Skips where programs for a machine cannot be made or run here."""

    def need(machine: str) -> None:
        need_module("ziglang")
        need_tool(f"qemu-{machine}")

    return need


@pytest.fixture
def no_compilers(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(cross, "zig_program", lambda: None)


def test_a_profile_for_each_processor() -> None:
    rows = {n: t for n, t in profiles().items() if t.back_end == "tvm" and t.options}
    named = {t.options["cpu"] for t in rows.values()}
    assert named == set(CPUS)
    for target in rows.values():
        triple = CPUS[target.options["cpu"]].triple
        assert target.triple in (triple, cross.gnu_triple(triple))
    assert {"raspberry-pi-3", "raspberry-pi-4", "raspberry-pi-5"} <= set(rows)


def test_a_processor_that_there_is_not() -> None:
    with pytest.raises(InfcError, match="no target `raspberry-pi-6`") as caught:
        look_up("raspberry-pi-6")
    assert "did you mean `raspberry-pi-" in caught.value.diagnostics[0].help
    with pytest.raises(InfcError, match="no such processor") as caught:
        target_of(cpu="cortex-a77")
    assert caught.value.diagnostics[0].code == "E205"
    assert re.search("did you mean `cortex-a7", caught.value.diagnostics[0].help)


@pytest.mark.parametrize("name", MACHINES)
def test_right_under_qemu(
    emulated: Callable[[str], None],
    need_tool: Callable[[str], str],
    tmp_path: Path,
    name: str,
) -> None:
    emulated(MACHINES[name])
    model = small_network(1)
    artifact, job = build(model, tmp_path, cpu=name)
    require_right(model, job)
    said = subprocess.run(
        [need_tool("readelf"), "-dW", job.entry], capture_output=True, text=True, check=True
    )
    needed = re.findall(r"NEEDED.*\[(.*)\]", said.stdout)
    assert all(re.match(r"(libc|libm|libpthread|libdl|ld-linux.*)\.so", n) for n in needed), needed
    assert f"qemu-{MACHINES[name]}" in tvm.device(job.target)
    assert artifact.notes["emulator"] in tvm.device(job.target)


CONVERSIONS = """
<ir_version: 8, opset_import: ["" : 17]>
net (float[8] x) => (float[8] y, double[8] z, int64[8] whole, uint64[8] counted)
{
  whole = Cast<to = 7>(x)
  y = Cast<to = 1>(whole)
  wide = Cast<to = 11>(x)
  long = Cast<to = 7>(wide)
  z = Cast<to = 11>(long)
  size = Abs(x)
  counted = Cast<to = 13>(size)
}
"""


def test_numbers_of_64_bits_on_a_processor_of_32(
    emulated: Callable[[str], None], tmp_path: Path
) -> None:
    """LLVM calls functions for them whose names the Arm ABI does not have."""
    emulated("arm")
    onnx.save(onnx.parser.parse_model(CONVERSIONS), tmp_path / "net.onnx")
    words = ("-t", "armv7", "-o", tmp_path / "o", "--loader", "none")
    done = infc("compile", tmp_path / "net.onnx", *words)
    assert (done.status, done.err) == (0, "")
    assert "verified    passed" in done.out


HALVES = """<ir_version: 8, opset_import: ["" : 17]>
net (float[1, 64, 9, 7] x, float[2, 5, 48] s) => (float[1, 32, 9, 7] y, float[2, 5, 5] p) {
  a = Conv<pads = [1, 1, 1, 1]>(x, w1, b1)
  b = Relu(a)
  c = Conv<pads = [1, 1, 1, 1], group = 32>(b, w2)
  d = Sigmoid(c)
  y = Mul(c, d)
  q = MatMul(s, w3)
  t = Transpose<perm = [0, 2, 1]>(q)
  r = MatMul(q, t)
  p = Softmax(r)
}
"""
HALVES_SHAPES = {"w1": (32, 64, 3, 3), "b1": (32,), "w2": (32, 1, 3, 3), "w3": (48, 48)}
MULTIPLY_ADDS = {"8h": (0x4E400C00, 0x4F001000), "4s": (0x4E20CC00, 0x4F801000)}
"""FMLA of vectors, and of a vector and an element, without their registers.

Source: Arm A-profile A64 ISA, C7.2: masks FFE0FC00 and FFC0F400.
"""


def multiply_adds(library: bytes) -> dict[str, int]:
    """How many of them a library has, by the elements of their vectors."""
    words = np.frombuffer(library[: len(library) // 4 * 4], "<u4")
    masks = (0xFFE0FC00, 0xFFC0F400)
    found = {}
    for name, codes in MULTIPLY_ADDS.items():
        pairs = zip(codes, masks, strict=True)
        found[name] = sum(int((words & mask == code).sum()) for code, mask in pairs)
    return found


def test_float16_is_multiplied_where_the_processor_can(
    emulated: Callable[[str], None], tmp_path: Path
) -> None:
    emulated("aarch64")
    weighted.save(tmp_path / "net.onnx", HALVES, HALVES_SHAPES)
    words = ("-t", "cortex-a76", "--precision", "fp16", "--samples", "1", "--loader", "none")
    done = infc("compile", tmp_path / "net.onnx", *words, "-o", tmp_path, "-q")
    assert (done.status, done.err) == (0, "")
    bundle = Path(done.out.strip())
    manifest = json.loads((bundle / "manifest.json").read_text())
    assert {row["dtype"] for row in (*manifest["inputs"], *manifest["outputs"])} == {"float32"}
    rows = manifest["verification"]["artifact"]["outputs"]
    assert min(row["sqnr_db"] for row in rows) > 50
    found = multiply_adds((bundle / "model" / "model.so").read_bytes())
    assert found["8h"] > max(100, found["4s"])  # exponentials are float32


@pytest.mark.parametrize(
    ("loops", "part"),
    [
        ([3, 3, 64], [1, 1, 64]),
        ([3, 3, 32], [1, 3, 32]),
        ([512], [128]),
        ([3, 3], [3, 3]),
        ([131], []),
    ],
)
def test_how_much_is_added_up_in_float16(loops: list[int], part: list[int]) -> None:
    assert part_of(loops) == part


def test_the_same_bytes_twice(emulated: Callable[[str], None], tmp_path: Path) -> None:
    emulated("aarch64")
    found = set()
    for place in ("a", "another-folder"):
        _, job = build(small_network(1), tmp_path / place, cpu="cortex-a53", form="static")
        found.add(job.entry.read_bytes())
    assert len(found) == 1
    require_right(small_network(1), job)


def test_a_processor_without_the_instructions_says_so(
    emulated: Callable[[str], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A Cortex-A53 has no dot products: a library for the A76 is refused, not stopped."""
    emulated("aarch64")
    model = small_network(1)
    _, job = build(model, tmp_path, cpu="cortex-a76")
    require_right(model, job)
    right = cross.find_emulator
    monkeypatch.setattr(cross, "find_emulator", lambda triple, _="": right(triple, "cortex-a53"))
    with pytest.raises(BackEndError, match="instructions that this processor does not have"):
        require_right(model, job)


@pytest.mark.skipif(platform.machine() != "x86_64", reason="missing: an x86-64 machine")
@pytest.mark.parametrize(
    ("model", "refusal"),
    [("Nehalem-v1", "instructions that this processor does not have"), ("", "")],
)
def test_x86_64_is_asked_by_cpuid(
    tvm_is_there: None,
    need_tool: Callable[[str], str],
    tmp_path: Path,
    model: str,
    refusal: str,
) -> None:
    """qemu's first processors of that kind have no AVX; without a name it has AVX2."""
    _, job = build(small_network(1), tmp_path, cpu="x86-64-v3")
    runner, templates = tmp_path / "runner", ROOT / "templates" / "tvm"
    sources = [f"-I{templates}", templates / "runner.c", "-ldl"]
    subprocess.run([need_tool("cc"), "-std=c99", *sources, "-o", runner], check=True)
    (tmp_path / "in0").write_bytes(bytes(432 * 4))
    start = [need_tool("qemu-x86_64"), "-cpu", model or "max"]
    done = subprocess.run(
        [*start, runner, job.entry, "1", tmp_path], capture_output=True, text=True, check=False
    )
    assert (done.returncode != 0) == bool(refusal), done.stderr
    assert refusal in done.stderr


def test_a_loader_for_another_machine(
    emulated: Callable[[str], None], need_tool: Callable[[str], str], tmp_path: Path
) -> None:
    """Compiled by Debian's compiler, which needs no libc++ to be compiled first."""
    emulated("aarch64")
    compiler = need_tool("aarch64-linux-gnu-g++")
    need_tool("cmake")
    done = infc("compile", DIGITS, "-t", "raspberry-pi-4", *FIXED, "-o", tmp_path)
    assert done.status == 0, done.err
    assert re.search(r"in qemu-aarch64\S* cortex-a72, not on the processor itself", done.out)
    bundle = tmp_path / "digits-raspberry-pi-4"
    assert "set(CMAKE_SYSTEM_PROCESSOR aarch64)" in (
        bundle / "loader" / "cpp" / "toolchain.cmake"
    ).read_text(encoding="utf-8")
    done = infc("verify", bundle, "--through", "cpp")
    assert done.status == 0, done.err
    done = infc("verify", bundle, "--through", "java")
    assert done.status == 2
    assert "the loader is for aarch64-linux-gnu" in done.err
    scratch = tmp_path / "by-hand"
    start = ["cmake", "-S", bundle / "loader" / "cpp", "-B", scratch]
    subprocess.run(
        [*start, f"-DCMAKE_TOOLCHAIN_FILE={bundle}/loader/cpp/toolchain.cmake"],
        check=True,
        capture_output=True,
    )
    (found,) = scratch.glob("CMakeFiles/*/CMakeCXXCompiler.cmake")
    assert Path(compiler).name in found.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("name", "packages"),
    [
        ("cortex-a53", "apt install g++-aarch64-linux-gnu"),
        ("cortex-a7", "apt install g++-arm-linux-gnueabihf"),
        ("riscv64", "apt install g++-riscv64-linux-gnu"),
        ("cortex-m4", "apt install gcc-arm-none-eabi"),
    ],
)
def test_a_missing_cross_compiler(
    tvm_is_there: None, no_compilers: None, name: str, packages: str
) -> None:
    with pytest.raises(InfcError, match=r"a C compiler for \S+ was not found") as caught:
        building.require_toolchain(look_up(name))
    (row,) = caught.value.diagnostics
    assert row.code == "E501"
    assert "pip install 'infc[cross]'" in row.help
    assert packages in row.help


def test_every_missing_cross_compiler_is_named(tvm_is_there: None, no_compilers: None) -> None:
    with pytest.raises(InfcError) as caught:
        building.require_any_toolchain(choose(["cortex-a53", "riscv64"], None, {}))
    assert len(caught.value.diagnostics) == 2


def test_a_compiler_that_is_named(
    monkeypatch: pytest.MonkeyPatch, need_tool: Callable[[str], str]
) -> None:
    need_tool("gcc")
    found = cross.find_compiler("riscv64-linux-gnu", "gcc -O0")
    assert (Path(found.c[0]).name, found.c[1]) == ("gcc", "-O0")
    assert Path(found.cxx[0]).name == "g++"
    monkeypatch.setenv("INFC_CC_RISCV64_LINUX_GNU", "gcc")
    assert Path(cross.find_compiler("riscv64-linux-gnu").c[0]).name == "gcc"
    monkeypatch.setenv("INFC_CC_RISCV64_LINUX_GNU", "no-such-gcc")
    with pytest.raises(InfcError, match="the compiler `no-such-gcc` was not found"):
        cross.find_compiler("riscv64-linux-gnu")


def test_without_an_emulator_the_graph_alone_is_proved(
    emulated: Callable[[str], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    emulated("riscv64")
    monkeypatch.setattr(cross, "find_emulator", lambda *_: None)
    reason = settings.absence(look_up("riscv64"))
    assert reason == (
        "it is for riscv64-linux-gnu, which nothing here runs: "
        "apt install qemu-user libc6-riscv64-cross"
    )
    done = infc("compile", DIGITS, "-t", "riscv64", *FIXED, "-o", tmp_path)
    assert done.status == 0, done.err
    assert f"the graph only, not the artifact: {reason}" in " ".join(done.out.split())
    _, job = build(small_network(1), tmp_path / "small", cpu="riscv64")
    with pytest.raises(BackEndError, match="cannot run here"):
        tvm.open(job)


@pytest.mark.parametrize(
    "options", [(), ("--precision", "int8", "--calibration", "random")], ids=["fp32", "int8"]
)
def test_a_microcontroller_gets_no_loader(
    tvm_is_there: None, need_module: Callable[[str], None], tmp_path: Path, options: tuple[str, ...]
) -> None:
    need_module("ziglang")
    done = infc("compile", DIGITS, "-t", "cortex-m4", *FIXED, *options, "-o", tmp_path)
    assert done.status == 0, done.err
    assert "`cortex-m4` has no operating system" in " ".join(done.out.split())
    bundle = tmp_path / "digits-cortex-m4"
    assert not (bundle / "loader").exists()
    done = infc("verify", bundle, "--through", "cpp")
    assert (done.status, "no operating system" in done.err) == (2, True)


@pytest.mark.parametrize(
    ("cpu", "flags", "lacks"),
    [
        ("x86-64-v3", "cx16 popcnt sse4_1 sse4_2 ssse3", "avx, avx2, bmi1, bmi2, f16c, fma, movbe"),
        ("x86-64-v2", "cx16 popcnt sse4_1 sse4_2", "ssse3"),
        ("x86-64-v2", "cx16 popcnt sse4_1 sse4_2 ssse3", ""),
    ],
)
def test_an_artifact_for_more_than_this_machine_has(
    monkeypatch: pytest.MonkeyPatch, cpu: str, flags: str, lacks: str
) -> None:
    monkeypatch.setattr(cross, "is_native", lambda _: True)
    monkeypatch.setattr("infc.targets.tvm_compiler.cpus._flags", lambda: frozenset(flags.split()))
    reason = settings.absence(target_of(cpu=cpu))
    assert reason == (f"this machine's processor lacks {lacks}" if lacks else "")


def test_what_is_looked_for_on_x86_64() -> None:
    assert CPUS["x86-64-v2"].instructions.state == 0
    assert CPUS["x86-64-v3"].instructions.state == 6
    assert CPUS["x86-64-v4"].instructions.state == 0xE6
    (query,) = CPUS["x86-64-v2"].instructions.queries
    assert (query.leaf, query.register, query.mask) == (1, 2, 1 << 9 | 1 << 20 | 1 << 23)
    beyond = replace(CPUS["x86-64-v4"], features=("+avx512vnni",)).instructions.queries
    assert any((q.leaf, q.register, q.mask) == (7, 2, 1 << 11) for q in beyond)
    assert not CPUS["cortex-a53"].instructions


def test_what_is_looked_for_on_arm() -> None:
    assert [a.name for a in CPUS["cortex-a7"].abilities] == ["neon", "vfpv4", "idiva"]
    assert "asimddp" in [a.name for a in CPUS["cortex-a76"].abilities]
    assert CPUS["cortex-m4"].abilities == ()
    features = replace(CPUS["cortex-a53"], features=("+dotprod",))
    assert "asimddp" in [a.name for a in features.abilities]
    assert HOST not in CPUS
