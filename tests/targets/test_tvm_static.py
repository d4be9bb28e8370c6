"""TVM's static form: an object to link, with nothing in it that it does not need."""

from __future__ import annotations

import json
import platform
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from command import infc
from conftest import ROOT
from tvm_models import TOLERANCE, build, expected, require_right, small_network, target_of

from infc.diagnostics import InfcError
from infc.targets import cross
from infc.targets.tvm_compiler import compile_model
from infc.targets.tvm_compiler.forms.library import definitions, write_sources
from infc.targets.tvm_compiler.forms.objects import ElfObject, ObjectError
from infc.targets.tvm_compiler.settings import cpu_of

PROGRAMS = ROOT / "tests" / "targets" / "programs"
NEEDED = {"memcpy", "memset", "expf", "__cpu_model", "__cpu_features2", "__cpu_indicator_init"}
"""What the small network's object may want of others: of libc, libm and, to know the processor, of
libgcc."""


@pytest.fixture
def tvm_is_there(need_module: Callable[[str], None], need_tool: Callable[[str], str]) -> None:
    need_module("tvm")
    need_tool("cc")


def test_with_threads(tvm_is_there: None, tmp_path: Path) -> None:
    model = small_network(1)
    artifact, job = build(model, tmp_path, "small", form="static")
    assert artifact.files == ("libinfc_small.a", "infc_small.o", "infc_small.h")
    require_right(model, job)


def test_without_threads_it_wants_nothing_of_a_system(
    tvm_is_there: None, tmp_path: Path, need_tool: Callable[[str], str]
) -> None:
    model = small_network(1)
    artifact, job = build(model, tmp_path, "small", form="static", threads="0")
    library = tmp_path / "model" / artifact.entry
    said = subprocess.run(
        [need_tool("nm"), "-A", library], capture_output=True, text=True, check=True
    ).stdout
    rows = [line.split() for line in said.splitlines()]
    wanted = {row[-1] for row in rows if row[-2] in "Uw"}
    assert "memcpy" in wanted
    assert wanted - {"_GLOBAL_OFFSET_TABLE_"} <= NEEDED
    given = {row[-1] for row in rows if row[-2] in "TDRBCV"}
    assert "infc_small_run" in given
    assert all(name.startswith("infc_small") for name in given)
    require_right(model, job)
    notes = artifact.notes
    assert notes["arena_bytes"] < notes["memory_bytes"] < notes["ram_bytes"]
    assert notes["weight_bytes"] < notes["flash_bytes"]


def test_a_shared_library_without_threads(
    tvm_is_there: None, tmp_path: Path, need_tool: Callable[[str], str]
) -> None:
    model = small_network(1)
    _, job = build(model, tmp_path, threads="0")
    said = subprocess.run(
        [need_tool("nm"), "-D", job.entry], capture_output=True, text=True, check=True
    ).stdout
    assert "infc_model_run" in said
    assert "pthread" not in said
    require_right(model, job)


def test_two_models_in_one_program(
    tvm_is_there: None, tmp_path: Path, need_tool: Callable[[str], str]
) -> None:
    """Under AddressSanitizer and UBSan; the models have kernels of the same names."""
    models = {name: small_network(seed) for seed, name in enumerate(("first", "second"))}
    folders = []
    for name, model in models.items():
        build(model, tmp_path / name, name, form="static", threads="0")
        folders.append(tmp_path / name / "model")
    program = tmp_path / "two"
    flags = ["-std=c99", "-Wall", "-Wextra", "-Werror", "-g", "-fsanitize=address,undefined"]
    archives = [next(folder.glob("lib*.a")) for folder in folders]
    subprocess.run(
        [
            *(need_tool("cc"), *flags, *(f"-I{folder}" for folder in folders)),
            *(PROGRAMS / "tvm_two.c", *archives, "-lm", "-o", program),
        ],
        check=True,
    )
    said = subprocess.run([program], capture_output=True, text=True, check=True, timeout=60)
    found = np.array([[float(word) for word in line.split()] for line in said.stdout.splitlines()])
    x = (np.arange(432) / np.float32(100)).astype(np.float32).reshape(1, 3, 12, 12)
    for column, model in enumerate(models.values()):
        right = expected(model, x)[0]
        np.testing.assert_allclose(found[:, column], right, rtol=0, atol=TOLERANCE * right.max())
    assert not np.allclose(found[:, 0], found[:, 1])


@pytest.mark.parametrize("compiler", ["gcc", "zig cc"])
def test_the_sources_are_plain_c99_and_clean(
    tvm_is_there: None,
    tmp_path: Path,
    need_tool: Callable[[str], str],
    need_module: Callable[[str], None],
    compiler: str,
) -> None:
    """The tables and the code that walks them, sanitised, around kernels that are not."""
    if compiler == "gcc":
        cc, sanitizers = [need_tool("gcc")], ["-g", "-fsanitize=address,undefined"]
    else:
        need_module("ziglang")
        cc = [*cross.find_compiler(f"{platform.machine()}-linux-gnu", "zig").c]
        sanitizers = ["-O2"]
    _, job = build(small_network(1), tmp_path, form="static", threads="0")
    cpu = cpu_of(job.target)
    sources = tmp_path / "sources"
    kernels = write_sources(
        *(compile_model(tmp_path / "in.onnx", cpu), cpu, sources, "the model"), threads=False
    )[-1]
    strict = ["-std=c99", "-pedantic", "-Wall", "-Wextra", "-Werror", *sanitizers]
    strict += [*definitions([kernels], threads=False), "-DINFC_LINKED", f"-I{sources}"]
    parts = [sources / "model.c", sources / "runtime.c", ROOT / "templates" / "tvm" / "runner.c"]
    objects = [tmp_path / f"{part.name}.o" for part in parts]
    for part, made in zip(parts, objects, strict=True):
        subprocess.run([*cc, *strict, "-c", part, "-o", made], check=True)
    program = tmp_path / "runner"
    weights = [*cc, "-c", "weights.S", "-o", tmp_path / "weights.o"]
    subprocess.run(weights, check=True, cwd=sources)
    objects += [tmp_path / "weights.o", kernels]
    subprocess.run([*cc, *strict, *objects, "-ldl", "-lm", "-o", program], check=True)
    x = np.random.default_rng(9).standard_normal((1, 3, 12, 12)).astype(np.float32)
    (tmp_path / "in0").write_bytes(x.tobytes())
    subprocess.run([program, "none", "1", tmp_path], check=True, timeout=60)
    right = expected(small_network(1), x)
    found = np.fromfile(tmp_path / "out0", np.float32).reshape(right.shape)
    np.testing.assert_allclose(found, right, rtol=0, atol=TOLERANCE * right.max())


def test_the_same_bytes_twice(tvm_is_there: None, tmp_path: Path) -> None:
    first, second = tmp_path / "a", tmp_path / "another-folder"
    artifact, _ = build(small_network(1), first, "small", form="static")
    build(small_network(1), second, "small", form="static")
    for name in artifact.files:
        assert (first / "model" / name).read_bytes() == (second / "model" / name).read_bytes()


def test_a_model_that_takes_too_much_memory(tvm_is_there: None, tmp_path: Path) -> None:
    with pytest.raises(InfcError, match="and `-X memory=4k` allows 4096") as caught:
        build(small_network(1), tmp_path, memory="4k")
    (row,) = caught.value.diagnostics
    assert row.code == "E208"
    assert re.search(r"the model takes \d+ bytes when it is made", row.message)
    build(small_network(1), tmp_path / "enough", memory="1M")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"memory": "much"}, "`-X memory=much`: no such value"),
        ({"memory": "0"}, "`-X memory=0`: no such value"),
        ({"threads": "4"}, "`-X threads=4`: no such value"),
        ({"form": "dynamic"}, "`-X form=dynamic`: no such value"),
        ({"cpu": "cortex-m4", "form": "library"}, "`cortex-m4` has no operating system"),
    ],
)
def test_options_that_make_no_sense(options: dict[str, str], message: str) -> None:
    with pytest.raises(InfcError, match=re.escape(message)) as caught:
        target_of(**options)
    assert caught.value.diagnostics[0].code == "E205"


def test_through_the_same_loader(
    tvm_is_there: None, tmp_path: Path, need_tool: Callable[[str], str]
) -> None:
    for tool in ("cmake", "g++", "javac"):
        need_tool(tool)
    digits = ROOT / "examples" / "digits" / "digits.onnx"
    options = ("--input", "image=1x1x8x8", "-X", "form=static", "-X", "threads=0")
    done = infc("compile", digits, "-t", "tvm", *options, "-o", tmp_path)
    assert done.status == 0, done.err
    assert "all in all flash " in done.out
    bundle = tmp_path / "digits-tvm"
    assert json.loads((bundle / "manifest.json").read_text())["verification"]["verdict"] == "passed"
    for language in ("cpp", "java"):
        done = infc("verify", bundle, "--through", language)
        assert done.status == 0, done.err


def test_what_is_no_object() -> None:
    for data in (b"", b"\x7fELF" + bytes(100), b"!<arch>\n" + bytes(100), b"\x7fELF\x02\x01" * 20):
        with pytest.raises(ObjectError):
            ElfObject(data)
