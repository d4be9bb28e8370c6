"""The Java loader: a typed class over the C ABI through JNI, the same for every back end.

    x: float32 [batch, 1, 8, 8] -> y: float32 [batch, 10]
    infc.digits.Digits.run(long batch, FloatBuffer x, FloatBuffer y)

Source: Java SE 11 language and `java.nio`; the Java Native Interface specification, 6.0.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from infc.bundle import Bundle
from infc.diagnostics import fail
from infc.loaders import compiling, rendering
from infc.loaders.programs import run_program
from infc.loaders.signature import MAX_UNKNOWN_RANK, Dim, Signature, Tensor
from infc.request import WorkerLimits

ELEMENTS = {
    "float32": "float",
    "float64": "double",
    "float16": "short",
    "bfloat16": "short",
    "int8": "byte",
    "int16": "short",
    "int32": "int",
    "int64": "long",
    "uint8": "byte",
    "uint16": "short",
    "uint32": "int",
    "uint64": "long",
    "bool": "byte",
}
"""The Java type that carries an element; unsigned ones and half floats travel as their bits."""

MAX_INT = 2**31 - 1

JDK_HELP = "apt install default-jdk-headless, or set JAVA_HOME to a JDK from 11 on"

_TAKEN_CLASSES = """
AutoCloseable Buffer Byte ByteBuffer ByteOrder Double DoubleBuffer Float FloatBuffer Harness
IllegalArgumentException IllegalStateException IntBuffer Integer List Long LongBuffer Main Math
ModelException Options Override Path RuntimeException Short ShortBuffer StandardCharsets String
StringBuilder System UnsatisfiedLinkError
"""
"""What the generated code uses, and a class of the model's own name would hide."""

_TAKEN_NAMES = frozenset(("env", "handle"))
"""Parameters of the generated code, beside the names that no identifier has anyway."""

_FAMILY = ("At", "Axes", "Data", "Direct", "Limit", "Rank", "Room", "Shape")
"""What the generated code appends to the name of a tensor."""


def class_name(name: str) -> str:
    """The class of the model `name`: `version_rfb_320` becomes `VersionRfb320`."""
    camel = "".join(part[:1].upper() + part[1:] for part in name.split("_"))
    return f"{camel}Model" if camel in _TAKEN_CLASSES.split() else camel


def package_name(s: Signature) -> str:
    """The Java package: one for each model, so that two of them never meet in one."""
    return f"infc.{s.namespace}"


@dataclass(frozen=True, slots=True)
class Size:
    """A dynamic dimension as the Java code names it."""

    dim: Dim
    name: str

    @property
    def literal(self) -> str:
        """The model's own name for it, as a string literal."""
        return json.dumps(self.dim.name)

    @property
    def range(self) -> str:
        """The values `run` takes, in words."""
        return f"{self.dim.low} to {self.dim.high}" if self.dim.bounds else "any size"

    @property
    def typical(self) -> int:
        """What `Main` takes where the user names no size; 0 where nothing is known."""
        return self.dim.bounds[1] if self.dim.bounds else 0


@dataclass(frozen=True, slots=True)
class Argument:
    """A tensor as the Java code names it; `sizes` are those its shape depends on."""

    tensor: Tensor
    name: str
    sizes: tuple[Size, ...]

    @property
    def element(self) -> str:
        """The primitive type of an element."""
        return ELEMENTS[self.tensor.dtype]

    @property
    def kind(self) -> str:
        """What precedes `Buffer` in the name of the buffer's class."""
        return self.element.capitalize()

    @property
    def boxed(self) -> str:
        """The class that knows the size of an element."""
        return "Integer" if self.kind == "Int" else self.kind

    @property
    def upper(self) -> str:
        """What its constants begin with."""
        return self.tensor.identifier.upper()

    @property
    def count_type(self) -> str:
        """The type of the constant that holds the number of elements."""
        return "int" if self.tensor.count <= MAX_INT else "long"

    @property
    def long_shape(self) -> str:
        """The shape as Java literals; -1 for what is not fixed."""
        return ", ".join(f"{a}L" for a in self.tensor.constant_shape)

    @property
    def axes(self) -> str:
        """The shape as Java expressions of the sizes; -1 for what only the run tells."""
        names = {size.dim: size.name for size in self.sizes}
        axes = self.tensor.axes or ()
        return ", ".join(
            names[a] if isinstance(a, Dim) else f"{-1 if a is None else a}L" for a in axes
        )

    @property
    def count(self) -> str:
        """The number of elements `run` needs, as a Java expression; 0 where only the run tells."""
        if self.tensor.is_static:
            return f"{self.upper}_COUNT"
        if not self.tensor.is_known:
            return "0"
        return f"{self.name}Count({', '.join(size.name for size in self.sizes)})"

    def direct(self, index: int) -> str:
        """The declaration of its copy in direct memory; `index` is its place among all tensors."""
        need = self.count if self.tensor.is_known else f"{self.name}.length"
        return rendering.call(
            f"        {self.kind}Buffer {self.name}Direct = {self.element}s(",
            [str(index), f'"{self.name}"', f"{self.name}.length", need],
            ");",
        )

    @property
    def jni_data(self) -> str:
        """The C++ declaration of the pointer to its elements."""
        const = "const " if self.tensor.role == "input" else ""
        return rendering.call(
            f"  auto* {self.name}Data = elements<{const}{self.tensor.c_type}>(",
            ["env", self.name, f"{self.name}At", f'"{self.name} is not an aligned direct buffer"'],
            ");",
        )

    @property
    def place(self) -> str:
        """The Java expression that checks the buffer and gives the position of its data."""
        role = "inputAt" if self.tensor.role == "input" else "outputAt"
        order = "ByteOrder.nativeOrder()" if self.kind == "Byte" else f"{self.name}.order()"
        return f'{role}("{self.name}", {self.name}, {order}, {self.count})'


def _arguments(s: Signature) -> tuple[tuple[Size, ...], tuple[Argument, ...]]:
    taken = set(_TAKEN_NAMES)
    sizes = tuple(Size(d, _camel(d.identifier, taken)) for d in s.dims)
    arguments = tuple(
        Argument(
            t,
            _camel(t.identifier, taken),
            tuple(next(size for size in sizes if size.dim == d) for d in t.dims),
        )
        for t in s.tensors
    )
    return sizes, arguments


def _camel(identifier: str, taken: set[str]) -> str:
    """`identifier` in camel case, with a number where that is in `taken`, which it joins.

    The names that the generated code derives from it are reserved with it.
    """
    first, *rest = identifier.split("_")
    base = first + "".join(part[:1].upper() + part[1:] for part in rest)
    name, number = base, 1
    while (family := {name, *(f"{name}{s}" for s in _FAMILY)}) & taken:
        number += 1
        name = f"{base}V{number}"
    taken |= family
    return name


def render(folder: Path, signature: Signature) -> None:
    """Write the loader into the new `folder`; beside it lies `cpp`, the C++ loader it calls."""
    folder.mkdir(parents=True)
    filled = _values(signature)
    for file, template in {
        f"{filled['cls']}.java": "java/Name.java.j2",
        "Main.java": "java/Main.java.j2",
        "Harness.java": "java/Harness.java.j2",
        f"{signature.name}_jni.cpp": "jni/name_jni.cpp.j2",
        "CMakeLists.txt": "java/CMakeLists.txt.j2",
        "README.md": "java/README.md.j2",
    }.items():
        (folder / file).write_text(rendering.fill(template, filled), encoding="utf-8")


def _values(s: Signature) -> dict[str, Any]:
    """What the templates are filled with."""
    sizes, arguments = _arguments(s)
    return {
        "s": s,
        "cls": class_name(s.name),
        "package": package_name(s),
        "jni": f"{package_name(s)}.{class_name(s.name)}".replace("_", "_1").replace(".", "_"),
        "sizes": sizes,
        "arguments": arguments,
        "inputs": arguments[: len(s.inputs)],
        "outputs": arguments[len(s.inputs) :],
        "kinds": sorted({(a.kind, a.element, a.boxed) for a in arguments}),
        "run_buffers": _run(sizes, arguments, lambda a: f"{a.kind}Buffer {a.name}"),
        "run_arrays": _run(sizes, arguments, lambda a: f"{a.element}[] {a.name}"),
        "run_direct": _run_call(sizes, arguments, "        run(", "Direct"),
        "execute": _execute(sizes, arguments),
        "execute_declaration": _execute_declaration(sizes, arguments),
        "jni_parameters": _jni_parameters(sizes, arguments),
        "jni_run": _jni_run(s, sizes, arguments),
        "example": _run_call(sizes, arguments, "    model.run(", ""),
        "main_run": _main_run(s, sizes, arguments),
        "described": {a.name: _described(s, a.tensor) for a in arguments},
        "max_rank": MAX_UNKNOWN_RANK,
    }


def _run(
    sizes: tuple[Size, ...], arguments: tuple[Argument, ...], form: Callable[[Argument], str]
) -> str:
    """The head of a public `run`."""
    parameters = [f"long {size.name}" for size in sizes]
    for a in arguments:
        parameters.append(form(a))
        if not a.tensor.is_known:
            parameters.append(f"long[] {a.name}Shape")
    return rendering.call("    public synchronized void run(", parameters, ") {")


def _run_call(
    sizes: tuple[Size, ...], arguments: tuple[Argument, ...], head: str, suffix: str
) -> str:
    """A call of `run` with the tensors' names, `suffix` appended."""
    passed = [size.name for size in sizes]
    for a in arguments:
        passed.append(f"{a.name}{suffix}")
        if not a.tensor.is_known:
            passed.append(f"{a.name}Shape")
    return rendering.call(head, passed, ");")


def _execute(sizes: tuple[Size, ...], arguments: tuple[Argument, ...]) -> tuple[str, ...]:
    """The lines of arguments in the call of the native `execute`."""
    lines = ["handle()", *(size.name for size in sizes)]
    for a in arguments:
        lines += [a.name, a.place]
        if not a.tensor.is_known:
            lines += [f"{a.name}.limit()", f'shapeOf("{a.name}", {a.name}Shape, {a.tensor.rank})']
    return tuple(lines)


def _execute_declaration(sizes: tuple[Size, ...], arguments: tuple[Argument, ...]) -> str:
    parameters = ["long handle", *(f"long {size.name}" for size in sizes)]
    for a in arguments:
        parameters += [f"{a.kind}Buffer {a.name}", f"int {a.name}At"]
        if not a.tensor.is_known:
            parameters += [f"int {a.name}Limit", f"long[] {a.name}Shape"]
    return rendering.call("    private static native int execute(", parameters, ");")


def _jni_parameters(sizes: tuple[Size, ...], arguments: tuple[Argument, ...]) -> str:
    """The parameters of the C++ side of `execute`."""
    parameters = ["JNIEnv* env", "jclass", "jlong handle", *(f"jlong {s.name}" for s in sizes)]
    for a in arguments:
        parameters += [f"jobject {a.name}", f"jint {a.name}At"]
        if not a.tensor.is_known:
            parameters += [f"jint {a.name}Limit", f"jlongArray {a.name}Shape"]
    return rendering.call("    ", parameters, ") {")


def _jni_run(s: Signature, sizes: tuple[Size, ...], arguments: tuple[Argument, ...]) -> str:
    """The call of the C ABI's `run`."""
    passed = ["model", *(size.name for size in sizes)]
    for a in arguments:
        passed.append(f"{a.name}Data")
        if not a.tensor.is_known:
            passed += [f"static_cast<std::size_t>({a.name}Room)", f"{a.name}Axes"]
        if a.tensor.axes is None:
            passed.append(f"&{a.name}Rank")
    return rendering.call(f"  const int status = {s.name}_run(", passed, ");")


def _main_run(s: Signature, sizes: tuple[Size, ...], arguments: tuple[Argument, ...]) -> str:
    """The call in `Main`, whose tensors are byte buffers."""
    passed = [f"dims[{i}]" for i in range(len(sizes))]
    for i, a in enumerate(arguments):
        inputs = len(s.inputs)
        tensor = f"inputs[{i}]" if i < inputs else f"outputs[{i - inputs}]"
        passed.append(f"{tensor}.data{'' if a.kind == 'Byte' else f'.as{a.kind}Buffer()'}")
        if not a.tensor.is_known:
            passed.append(f"{tensor}.shape")
    return rendering.call("        model.run(", passed, ");")


def _described(s: Signature, t: Tensor) -> str:
    """The tensor as the harness is told about it."""
    axes = [
        f"-1 - {s.dims.index(a)}"
        if isinstance(a, Dim)
        else "Harness.UNKNOWN"
        if a is None
        else f"{a}"
        for a in t.axes or ()
    ]
    rank = ["(long[]) null"] if t.axes is None else axes
    return rendering.call(
        "            new Harness.Tensor(", [json.dumps(t.name), f'"{t.dtype}"', *rank]
    )


def build(
    bundle: Bundle,
    scratch: Path,
    limits: WorkerLimits,
    options: compiling.BuildOptions = compiling.BuildOptions(),  # noqa: B008
) -> Path:
    """Compile the bundle's loader in the new folder `scratch` and return the build folder.

    Raises:
        InfcError: E501 where the JDK, CMake, the C++ compiler or the SDK is missing, E702 where
            the bundle has no Java loader, E703 where something does not compile, E503.
    """
    project = compiling.Project(
        compiling.loader_folder(bundle, "java"),
        f"the Java loader of `{bundle.name}`",
        "cpp",
        {"JAVA_HOME": str(find_jdk())},
    )
    return compiling.build_project(project, bundle, scratch, limits, options)


def find_jdk() -> Path:
    """The folder of the JDK: `JAVA_HOME`, else the one that `javac` belongs to.

    Raises:
        InfcError: E501 where there is none, or it has no JNI headers.
    """
    named = os.environ.get("JAVA_HOME")
    javac = shutil.which("javac")
    if not named and not javac:
        raise fail("E501", "no JDK was found: `javac` is not in PATH", help=JDK_HELP)
    home = Path(named) if named else Path(str(javac)).resolve().parent.parent
    for file in ("bin/javac", "bin/java", "include/jni.h"):
        if not (home / file).is_file():
            source = " (JAVA_HOME)" if named else ""
            raise fail("E501", f"`{home}`{source} is not a JDK: it has no {file}", help=JDK_HELP)
    return home


def command(built: Path, bundle: Bundle, flags: Sequence[str] = ()) -> list[str]:
    """The command line that starts `Main` of the loader compiled in `built`."""
    return [
        str(find_jdk() / "bin" / "java"),
        *flags,
        f"-Dinfc.{bundle.name}.library={built / f'lib{bundle.name}_jni.so'}",
        *("-jar", str(built / f"{bundle.name}.jar")),
    ]


def run(
    program: Path, bundle: Bundle, arguments: Sequence[str], limits: WorkerLimits
) -> dict[str, Any]:
    """Run `Main` of the loader compiled in `program` and return what it prints as JSON.

    Raises:
        InfcError: E502 where it crashes, E503 where it takes too long, E705 where it fails.
    """
    started = [*command(program, bundle), str(bundle.path), "--json", *arguments]
    return run_program(started, f"the Java loader of `{bundle.name}`", limits)
