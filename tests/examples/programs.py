"""Building and running the examples' C++ and Java programs over a bundle."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from conftest import ROOT

from infc.bundle import Bundle
from infc.loaders import compiling, java
from infc.request import WorkerLimits

EXAMPLES = ROOT / "examples"
LIMITS = WorkerLimits(timeout_s=300)


@dataclass(frozen=True)
class Example:
    """`folder` of examples/ builds the program `cpp` and the class `java`."""

    folder: str
    cpp: str
    java: str


def need(name: str, need_back_end: Callable[[str], None], need_tool: Callable[[str], str]) -> None:
    """Skip where the back end `name`, CMake, a compiler or a JDK is missing."""
    need_back_end(name)
    for tool in ("cmake", "g++", "javac"):
        need_tool(tool)


def build(example: Example, bundle: Bundle, scratch: Path) -> Path:
    """Compile as the example's README says; the build folder."""
    project = compiling.Project(
        EXAMPLES / example.folder,
        f"the example {example.folder}",
        "loader/cpp",
        {"BUNDLE": str(bundle.path.resolve()), "JAVA_HOME": str(java.find_jdk())},
    )
    return compiling.build_project(project, bundle, scratch, LIMITS, compiling.BuildOptions())


def run_cpp(example: Example, bundle: Bundle, built: Path, data: Path) -> list[str]:
    return lines_of([built / example.cpp, bundle.path, data])


def run_java(example: Example, bundle: Bundle, built: Path, data: Path) -> list[str]:
    library = built / "loader" / f"lib{bundle.name}_jni.so"
    classes = f"{built / f'{example.cpp}.jar'}:{built / 'loader' / f'{bundle.name}.jar'}"
    jdk = java.find_jdk()
    start = [jdk / "bin" / "java", "-Xcheck:jni"]
    if bundle.manifest["target"]["back_end"] == "tvm":
        # libtvm_ffi takes SIGSEGV while it is loaded. The loader gives it back at once, but a check
        # of signals may fall in between and warn; with the JDK's library for that it is never lost.
        start = ["env", f"LD_PRELOAD={jdk / 'lib' / 'libjsig.so'}", *start]
    options = [f"-Dinfc.{bundle.name}.library={library}", "-cp", classes]
    return lines_of([*start, *options, example.java, bundle.path, data])


def compiles_without_a_warning(
    example: Example, bundle: Bundle, built: Path, scratch: Path
) -> None:
    folder = EXAMPLES / example.folder
    flags = ["-std=c++17", "-Wall", "-Wextra", "-Wpedantic", "-Wconversion", "-Werror"]
    include = f"-I{bundle.path / 'loader' / 'cpp'}"
    lines_of(["g++", *flags, "-fsyntax-only", include, folder / f"{example.cpp}.cpp"])
    jar = built / "loader" / f"{bundle.name}.jar"
    strict = ["--release", "11", "-Xlint:all", "-Werror", "-cp", jar, "-d", scratch]
    lines_of([java.find_jdk() / "bin" / "javac", *strict, folder / f"{example.java}.java"])


def lines_of(command: list[object]) -> list[str]:
    """What a program that succeeds without a complaint prints."""
    words = [str(word) for word in command]
    # libtorch's threads, one for each core, wait for each other actively: beside other tests on
    # the same cores that takes twenty times as long.
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(words, capture_output=True, text=True, timeout=300, env=env, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""
    return done.stdout.splitlines()
