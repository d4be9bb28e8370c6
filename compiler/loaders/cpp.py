"""The C and C++ loader: rendered into a bundle, compiled, and run."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from infc.bundle import Bundle, sha256_of
from infc.loaders.compiling import (
    TOOLCHAIN,
    BuildOptions,
    Project,
    build_project,
    loader_folder,
)
from infc.loaders.cpp_layout import layout
from infc.loaders.programs import run_program
from infc.loaders.recipe import Recipe
from infc.loaders.rendering import fill, plain, plain_folder
from infc.loaders.signature import Signature
from infc.request import WorkerLimits
from infc.targets import Artifact, LoaderSpec, Target, back_end
from infc.targets.abilities import cross_of, loader_of
from infc.workers.versions import versions

RUNTIME_FILES = (
    "infc_runtime.h",
    "adaptor.h",
    "runtime.cpp",
    "sha256.h",
    "sha256.cpp",
    "harness.h",
    "harness.cpp",
)


def render(
    folder: Path,
    signature: Signature,
    target: Target,
    artifact: Artifact,
    model: Path,
    recipe: Recipe | None = None,
) -> None:
    """Write the loader into the new `folder`; `model` is the folder of the artifact's files.

    `recipe` says how the artifact is built on the device, where that is still to be done.
    """
    spec = loader_of(back_end(target.back_end), artifact.entry)
    (folder / "runtime").mkdir(parents=True)
    for name in RUNTIME_FILES:
        (folder / "runtime" / name).write_text(plain(f"cpp/runtime/{name}"), encoding="utf-8")
    _write_adaptor(folder, spec)
    values = {**layout(signature), **_facts(target, artifact, model), "recipe": recipe}
    name = signature.name
    cross = cross_of(back_end(target.back_end), target)
    if cross is not None:
        text = fill("cmake/toolchain.cmake.j2", {"triple": cross.triple, "machine": cross.machine})
        (folder / TOOLCHAIN).write_text(text, encoding="utf-8")
    for file, template in {
        f"{name}.h": "name.h.j2",
        f"{name}.hpp": "name.hpp.j2",
        f"{name}.cpp": "name.cpp.j2",
        "bundle_info.h": "bundle_info.h.j2",
        "main.cpp": "main.cpp.j2",
        "CMakeLists.txt": "CMakeLists.txt.j2",
        "README.md": "README.md.j2",
    }.items():
        (folder / file).write_text(fill(f"cpp/{template}", values), encoding="utf-8")


def _write_adaptor(folder: Path, spec: LoaderSpec) -> None:
    """Copy the back end's adaptor, its headers, and what finds its SDK."""
    name, root = spec.adaptor, spec.templates
    (folder / "adaptor.cpp").write_text(plain(f"cpp/adaptors/{name}.cpp", root), encoding="utf-8")
    (folder / "sdk.cmake").write_text(plain(f"cmake/adaptors/{name}.cmake", root), encoding="utf-8")
    for file, text in plain_folder(f"cpp/adaptors/{spec.headers or name}", root).items():
        (folder / "adaptor").mkdir(exist_ok=True)
        (folder / "adaptor" / file).write_text(text, encoding="utf-8")


def _facts(target: Target, artifact: Artifact, model: Path) -> dict[str, Any]:
    """What the loader checks and tells the runtime."""
    end = back_end(target.back_end)
    distribution = end.DISTRIBUTIONS[0]
    files = dict.fromkeys((artifact.entry, *artifact.files))
    return {
        # What is still to be built on the device has no hash yet; it will lie beside it.
        "files": [(n, sha256_of(model / n) if (model / n).exists() else "") for n in files],
        "entry": artifact.entry,
        "settings": sorted(target.options.items()),
        "distribution": distribution,
        "runtime_version": versions(end, target, artifact.notes)[distribution],
        "device": target.device,
        "precision": str(target.precision),
    }


def build(
    bundle: Bundle,
    scratch: Path,
    limits: WorkerLimits,
    options: BuildOptions = BuildOptions(),  # noqa: B008
) -> Path:
    """Compile the bundle's loader in the new folder `scratch` and return its `main`.

    Raises:
        InfcError: E501 where CMake, the compiler or the SDK is missing, E702 where the bundle has
            no C++ loader, E703 where something does not compile, E503.
    """
    folder = loader_folder(bundle, "cpp")
    what = f"the C++ loader of `{bundle.name}`"
    return build_project(Project(folder, what), bundle, scratch, limits, options) / "main"


def run(
    program: Path, bundle: Bundle, arguments: Iterable[str], limits: WorkerLimits
) -> dict[str, Any]:
    """Run a loader's `main` on its bundle and return what it prints as JSON.

    Raises:
        InfcError: E502 where it crashes, E503 where it takes too long, E705 where it fails.
    """
    target = Target.from_json(bundle.manifest["target"])
    cross = cross_of(back_end(target.back_end), target)
    start = cross.emulator() if cross is not None else ()
    command = [*start, str(program), str(bundle.path), "--json", *arguments]
    return run_program(command, f"the C++ loader of `{bundle.name}`", limits)


def device_arguments(bundle: Bundle) -> list[str]:
    """`--device` where the artifact's own device is absent here and another one stands in."""
    device = bundle.manifest["artifact"]["notes"].get("verified_on")
    return ["--device", device] if device else []
