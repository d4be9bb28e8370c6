"""An `.ort` file with the same bytes every time it is made.

    root, kernel types in the order of a hash table, model
 -> root, kernel types in the order of their names,   model

ONNX Runtime writes the model first, from the end of the file backwards, always the same; before
it lie the root table and the table of which operator arguments decide a kernel's types. Of that
one the index is sorted, but its entries lie in the order in which a hash table, seeded anew in
each process, gave them. So the front is written anew, in sorted order, before the model's bytes.

Source: onnxruntime 1.31, core/flatbuffers/schema/ort.fbs and core/framework/kernel_type_str_
resolver.cc (`SaveToOrtFormat`); the reader and writer are those of its Python package.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

IDENTIFIER = b"ORTM"
ALIGNMENT = 16
"""No scalar or vector of the schema asks for more."""


def canonicalize(path: Path) -> None:
    """Rewrite the front of the flatbuffer at `path`, in place."""
    import flatbuffers
    from onnxruntime.tools.ort_format_model.ort_flatbuffers_py.fbs import InferenceSession

    data = path.read_bytes()
    session = InferenceSession.InferenceSession.GetRootAs(data, 0)
    model = session.Model()._tab.Pos
    vtable = model - int.from_bytes(data[model : model + 4], "little", signed=True)
    start = min(model, vtable)
    rest = len(data) - start

    builder = flatbuffers.Builder(len(data) + start + ALIGNMENT)
    builder.head -= rest
    builder.Bytes[builder.head :] = data[start:]
    builder.minalign = ALIGNMENT
    resolver = _copy_resolver(builder, session.KernelTypeStrResolver())
    version = builder.CreateString(session.OrtVersion())
    InferenceSession.Start(builder)
    InferenceSession.AddOrtVersion(builder, version)
    InferenceSession.AddModel(builder, len(data) - model)
    InferenceSession.AddKernelTypeStrResolver(builder, resolver)
    builder.Finish(InferenceSession.End(builder), file_identifier=IDENTIFIER)
    path.write_bytes(builder.Output())


def _copy_resolver(builder: Any, resolver: Any) -> int:
    from onnxruntime.tools.ort_format_model.ort_flatbuffers_py.fbs import (
        ArgTypeAndIndex,
        KernelTypeStrArgsEntry,
        KernelTypeStrResolver,
        OpIdKernelTypeStrArgsEntry,
    )

    def argument(arg: Any) -> int:
        ArgTypeAndIndex.Start(builder)
        ArgTypeAndIndex.AddArgType(builder, arg.ArgType())
        ArgTypeAndIndex.AddIndex(builder, arg.Index())
        return int(ArgTypeAndIndex.End(builder))

    def kind(entry: Any) -> int:
        args = [argument(entry.Args(i)) for i in range(entry.ArgsLength())]
        vector = _vector(builder, args, KernelTypeStrArgsEntry.StartArgsVector)
        name = builder.CreateString(entry.KernelTypeStr())
        KernelTypeStrArgsEntry.Start(builder)
        KernelTypeStrArgsEntry.AddKernelTypeStr(builder, name)
        KernelTypeStrArgsEntry.AddArgs(builder, vector)
        return int(KernelTypeStrArgsEntry.End(builder))

    def operator(entry: Any) -> int:
        module = OpIdKernelTypeStrArgsEntry
        entries = [entry.KernelTypeStrArgs(i) for i in range(entry.KernelTypeStrArgsLength())]
        kinds = [kind(e) for e in sorted(entries, key=lambda e: bytes(e.KernelTypeStr()))]
        vector = _vector(builder, kinds, module.StartKernelTypeStrArgsVector)
        name = builder.CreateString(entry.OpId())
        module.Start(builder)
        module.AddOpId(builder, name)
        module.AddKernelTypeStrArgs(builder, vector)
        return int(module.End(builder))

    entries = [resolver.OpKernelTypeStrArgs(i) for i in range(resolver.OpKernelTypeStrArgsLength())]
    operators = [operator(e) for e in sorted(entries, key=lambda e: bytes(e.OpId()))]
    vector = _vector(builder, operators, KernelTypeStrResolver.StartOpKernelTypeStrArgsVector)
    KernelTypeStrResolver.Start(builder)
    KernelTypeStrResolver.AddOpKernelTypeStrArgs(builder, vector)
    return int(KernelTypeStrResolver.End(builder))


def _vector(builder: Any, offsets: list[int], start: Callable[[Any, int], int]) -> int:
    start(builder, len(offsets))
    for offset in reversed(offsets):
        builder.PrependUOffsetTRelative(offset)
    return int(builder.EndVector())
