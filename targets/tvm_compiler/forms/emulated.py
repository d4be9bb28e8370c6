"""An artifact that this process cannot open: run by a small C program, under an emulator.

The program (`templates/tvm/runner.c`) is built by the compiler that built the artifact, opens it or
has it linked in, and exchanges tensors in files.
"""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from infc.targets import BackEndError, cross
from infc.targets.tvm_compiler.forms.library import CompilerError, run_compiler, template_folder
from infc.targets.tvm_compiler.forms.opened import DTYPE_NAMES, Model
from infc.targets.tvm_compiler.settings import cpu_of, has_threads

if TYPE_CHECKING:
    from infc.targets import RunJob, Target

_FUNCTIONS = ("tensor", "bytes", "create", "place", "run", "message", "destroy")


def emulator_of(target: Target) -> cross.Emulator | None:
    """What runs the artifacts of `target` here; None where nothing has to."""
    cpu = cpu_of(target)
    return None if cross.is_native(cpu.triple) else cross.find_emulator(cpu.triple, cpu.mcpu)


class Emulated:
    """A program with the model in it, or that opens it; `run` takes and gives arrays by name.

    Raises:
        InfcError: E501, there is no compiler.
        BackEndError: the program does not compile, or does not start.
    """

    def __init__(self, job: RunJob) -> None:
        self._job = job
        self._folder = tempfile.TemporaryDirectory(prefix="infc-runner-")
        self._place = Path(self._folder.name)
        program = self._place / "runner"
        emulator = emulator_of(job.target)
        start = emulator.command if emulator else ()
        try:
            run_compiler(_command(job, program), self._place)
        except CompilerError as error:
            raise BackEndError(f"the program that runs the artifact: {error}") from error
        self._start = (*start, str(program), str(job.entry.resolve()))
        self._types = self._described()

    def run(self, feeds: Mapping[str, Any]) -> dict[str, Any]:
        """Run once.

        Raises:
            BackEndError: a kernel refuses, or an input is of another type or shape.
        """
        import numpy as np

        with tempfile.TemporaryDirectory(dir=self._place) as name:
            folder = Path(name)
            for i, (key, wanted) in enumerate(zip(self._job.inputs, self._types[0], strict=True)):
                array = np.asarray(feeds[key], order="C")
                if (array.dtype.name, array.shape) != wanted:
                    raise BackEndError(
                        f"`{key}` is {array.dtype.name} {array.shape}, not {wanted[0]} {wanted[1]}"
                    )
                (folder / f"in{i}").write_bytes(array.tobytes())
            self._call(str(self._job.threads), str(folder))
            return {
                key: np.fromfile(folder / f"out{i}", np.dtype(dtype)).reshape(shape)
                for i, (key, (dtype, shape)) in enumerate(
                    zip(self._job.outputs, self._types[1], strict=True)
                )
            }

    def _described(self) -> tuple[list[tuple[str, tuple[int, ...]]], ...]:
        """Type and shape of each input, and of each output."""
        import ml_dtypes  # noqa: F401  (numpy learns bfloat16 by it)

        found: tuple[list[tuple[str, tuple[int, ...]]], ...] = ([], [])
        for line in self._call().splitlines():
            output, code, *shape = map(int, line.split())
            found[output].append((DTYPE_NAMES[code], tuple(shape)))
        return found

    def _call(self, *arguments: str) -> str:
        done = subprocess.run(
            [*self._start, *arguments], capture_output=True, text=True, check=False
        )
        if done.returncode:
            said = done.stderr.strip()[-500:] or f"it ended with status {done.returncode}"
            raise BackEndError(f"the artifact, run by a program of its own: {said}")
        return done.stdout


def linked(job: RunJob) -> Model:
    """A static library of this machine's own, made a shared one and opened.

    Raises:
        InfcError: E501, there is no compiler.
        BackEndError: it does not link.
    """
    target = job.target
    compiler = cross.find_compiler(cpu_of(target).triple, target.options.get("compiler", ""))
    whole = ("-Wl,--whole-archive", str(job.entry.resolve()), "-Wl,--no-whole-archive")
    with tempfile.TemporaryDirectory(prefix="infc-linked-") as folder:
        made = Path(folder) / "model.so"
        command = [*compiler.c, "-shared", *whole, "-lpthread", "-lm", "-o", str(made)]
        try:
            run_compiler(command, made.parent)
        except CompilerError as error:
            raise BackEndError(f"the static library does not link: {error}") from error
        prefix = job.entry.stem.removeprefix("lib")
        place = not has_threads(target)
        return Model(made, job.inputs, job.outputs, job.threads, prefix, place=place)


def _command(job: RunJob, program: Path) -> Sequence[str]:
    """What compiles the program."""
    cpu = cpu_of(job.target)
    compiler = cross.find_compiler(cpu.triple, job.target.options.get("compiler", ""), cpu.flags)
    sources = [f"-I{template_folder()}", str(template_folder() / "runner.c")]
    if job.entry.suffix == ".a":
        base = job.entry.stem.removeprefix("lib")
        names = [f"-Dinfc_model_{name}={base}_{name}" for name in _FUNCTIONS]
        place = [] if has_threads(job.target) else ["-DINFC_PLACE"]
        sources = ["-DINFC_LINKED", *names, *place, *sources, str(job.entry.resolve())]
    options = ["-std=c99", "-O1", "-s"]
    return [*compiler.c, *options, *sources, "-ldl", "-lpthread", "-lm", "-o", str(program)]
