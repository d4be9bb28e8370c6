"""A plan as a static library: one object, a header, and no symbol that another model has, too.

    infc_NAME.o     kernels, weights, tables and the code that walks them, linked into one object
    libinfc_NAME.a  the same as an archive
    infc_NAME.h     the interface, and the sizes as constants

Every symbol that the object defines begins with `infc_NAME`, so that models link side by side.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from infc.targets.tvm_compiler.forms.library import (
    FLAGS,
    HEADER,
    CompilerError,
    Sizes,
    definitions,
    place_bytes,
    run_compiler,
    template_folder,
    write_sources,
)
from infc.targets.tvm_compiler.forms.objects import ElfObject, Footprint, ObjectError, archive

if TYPE_CHECKING:
    from infc.targets.tvm_compiler.cpus import Cpu
    from infc.targets.tvm_compiler.forms.plan import Plan

_PREFIX = "infc_model"


@dataclass(frozen=True, slots=True)
class StaticLibrary:
    """What was written: file names, `archive` the first, and what the object takes of memory."""

    archive: str
    files: tuple[str, ...]
    sizes: Sizes
    footprint: Footprint

    @property
    def ram_bytes(self) -> int:
        """What a program with one model needs of memory that is written, without its stack."""
        return self.footprint.ram + self.sizes.place


def write_static(
    plan: Plan,
    cpu: Cpu,
    folder: Path,
    scratch: Path,
    name: str,
    compiler: Sequence[str],
    *,
    threads: bool,
) -> StaticLibrary:
    """Write the library of the model `name`, an identifier, into `folder`.

    Raises:
        CompilerError: the C compiler refuses.
    """
    sources = write_sources(plan, cpu, scratch, name, threads=threads, checked=False)
    base = f"infc_{name}"
    made = scratch / "merged.o"
    objects = []
    for source in sources:
        objects.append(source.with_suffix(".o"))
        if source.suffix != ".o":
            options = _options(cpu, sources, threads=threads)
            run_compiler(
                [*compiler, *FLAGS, *options, "-c", source.name, "-o", objects[-1].name], scratch
            )
    parts = [o.name for o in objects]
    run_compiler([*compiler, "-r", "-nostdlib", "-Wl,-S", *parts, "-o", made.name], scratch)
    try:
        data = ElfObject(made.read_bytes()).renamed(lambda symbol: _symbol(symbol, base))
        footprint = ElfObject(data).footprint()
        library = archive(f"{base}.o", data)
    except ObjectError as error:
        raise CompilerError(f"the C compiler made {error}") from error
    weights = (scratch / "weights.bin").stat().st_size
    place = place_bytes(plan, cpu, threads=threads)
    sizes = Sizes(len(library), weights, plan.arena_bytes, place)
    files = (f"lib{base}.a", f"{base}.o", f"{base}.h")
    (folder / files[0]).write_bytes(library)
    (folder / files[1]).write_bytes(data)
    header = _header(plan, name, sizes, footprint)
    (folder / files[2]).write_text(header, encoding="utf-8")
    return StaticLibrary(files[0], files, sizes, footprint)


def _options(cpu: Cpu, sources: Sequence[Path], *, threads: bool) -> list[str]:
    """What the C sources are compiled with beside what all are."""
    found = ["-ffunction-sections", "-fdata-sections", *definitions(sources, threads=threads)]
    if not threads:
        found.append("-DINFC_NO_MALLOC")
    if cpu.bare:
        found += ["-ffreestanding", "-fno-pic", "-DINFC_FREESTANDING"]
    return found


def _symbol(symbol: str, base: str) -> str:
    """The name of `symbol` in the library: `infc_model_run` is `infc_NAME_run`."""
    if symbol.startswith(f"{_PREFIX}_"):
        return base + symbol.removeprefix(_PREFIX)
    return f"{base}_{symbol}"


def _header(plan: Plan, name: str, sizes: Sizes, footprint: Footprint) -> str:
    """`infc_model.h` with the model's name for `model`, and its sizes."""
    text = (template_folder() / HEADER).read_text(encoding="utf-8")
    upper = f"INFC_{name.upper()}"
    constants = [
        f"#define {upper}_BYTES {sizes.place}        /* of memory that {_PREFIX}_place needs */",
        f"#define {upper}_ARENA_BYTES {sizes.arena}  /* of them, for what layers compute */",
        f"#define {upper}_WEIGHT_BYTES {sizes.weights}",
        f"#define {upper}_FLASH_BYTES {footprint.flash} /* code, weights and tables */",
        f"#define {upper}_STATIC_RAM_BYTES {footprint.ram} /* beside {upper}_BYTES */",
    ]
    for place in ("input", "output"):
        rows = sorted((t for t in plan.tensors if t.place == place), key=lambda t: t.at)
        constants += [f"#define {upper}_{place.upper()}_{t.at}_BYTES {t.bytes}" for t in rows]
    mark = "#define INFC_MODEL_ABI 1\n"
    text = text.replace(mark, mark + "\n/* Bytes. */\n" + "\n".join(constants) + "\n")
    return text.replace("INFC_MODEL", upper).replace(_PREFIX, f"infc_{name}")
