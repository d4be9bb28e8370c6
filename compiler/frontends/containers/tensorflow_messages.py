"""TensorFlow's protocol buffers without TensorFlow: the messages and fields that are looked at.

Declared here as in tensorflow/core/protobuf/{saved_model,meta_graph}.proto and
tensorflow/core/framework/{graph,node_def,attr_value,tensor,tensor_shape,function,op_def,
versions}.proto; the numbers are theirs. The descriptors live in a pool of their own, beside
TensorFlow's where that is loaded.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

from infc.frontends.containers.archives import damaged

MAX_FILE_BYTES = (2 << 30) - 1
"""A protocol buffer is not larger."""

_MESSAGES: dict[str, dict[str, tuple[int, str]]] = {
    "SavedModel": {
        "saved_model_schema_version": (1, "int64"),
        "meta_graphs": (2, "repeated MetaGraphDef"),
    },
    "MetaGraphDef": {
        "meta_info_def": (1, "MetaInfoDef"),
        "graph_def": (2, "GraphDef"),
        "signature_def": (5, "map SignatureDef"),
        "asset_file_def": (6, "repeated AssetFileDef"),
        "object_graph_def": (7, "Anything"),
    },
    "MetaInfoDef": {
        "tags": (4, "repeated string"),
        "tensorflow_version": (5, "string"),
    },
    "AssetFileDef": {"tensor_info": (1, "TensorInfo"), "filename": (2, "string")},
    "SignatureDef": {
        "inputs": (1, "map TensorInfo"),
        "outputs": (2, "map TensorInfo"),
        "method_name": (3, "string"),
    },
    "TensorInfo": {
        "name": (1, "string"),
        "dtype": (2, "int32"),
        "tensor_shape": (3, "TensorShapeProto"),
        "coo_sparse": (4, "Anything"),
        "composite_tensor": (5, "Anything"),
    },
    "TensorShapeProto": {"dim": (2, "repeated Dim"), "unknown_rank": (3, "bool")},
    "Dim": {"size": (1, "int64"), "name": (2, "string")},
    "GraphDef": {
        "node": (1, "repeated NodeDef"),
        "library": (2, "FunctionDefLibrary"),
        "versions": (4, "VersionDef"),
    },
    "VersionDef": {"producer": (1, "int32"), "min_consumer": (2, "int32")},
    "NodeDef": {
        "name": (1, "string"),
        "op": (2, "string"),
        "input": (3, "repeated string"),
        "attr": (5, "map AttrValue"),
    },
    "AttrValue": {
        "type": (6, "int32"),
        "shape": (7, "TensorShapeProto"),
        "tensor": (8, "TensorProto"),
        "list": (1, "ListValue"),
        "func": (10, "NameAttrList"),
    },
    "ListValue": {"func": (9, "repeated NameAttrList")},
    "NameAttrList": {"name": (1, "string")},
    "TensorProto": {"dtype": (1, "int32"), "tensor_shape": (2, "TensorShapeProto")},
    "FunctionDefLibrary": {"function": (1, "repeated FunctionDef")},
    "FunctionDef": {"signature": (1, "OpDef"), "node_def": (3, "repeated NodeDef")},
    "OpDef": {"name": (1, "string")},
    "BundleHeaderProto": {"num_shards": (1, "int32"), "endianness": (2, "int32")},
    "BundleEntryProto": {
        "dtype": (1, "int32"),
        "shape": (2, "TensorShapeProto"),
        "shard_id": (3, "int32"),
        "offset": (4, "int64"),
        "size": (5, "int64"),
    },
    "Anything": {},
}
_PACKAGE = "infc.tensorflow"

DTYPES = {
    1: "float32", 2: "float64", 3: "int32", 4: "uint8", 5: "int16", 6: "int8", 7: "string",
    8: "complex64", 9: "int64", 10: "bool", 11: "qint8", 12: "quint8", 13: "qint32",
    14: "bfloat16", 15: "qint16", 16: "quint16", 17: "uint16", 18: "complex128", 19: "float16",
    20: "resource", 21: "variant", 22: "uint32", 23: "uint64", 24: "float8_e5m2",
    25: "float8_e4m3fn", 29: "int4", 30: "uint4",
}  # fmt: skip
"""`DataType`, tensorflow/core/framework/types.proto; a hundred more is a reference to one."""


@cache
def message(name: str) -> Any:
    """The class of the message `name`."""
    from google.protobuf import message_factory

    return message_factory.GetMessageClass(_pool().FindMessageTypeByName(f"{_PACKAGE}.{name}"))


@cache
def _pool() -> Any:
    from google.protobuf import descriptor_pb2, descriptor_pool

    file = descriptor_pb2.FileDescriptorProto(
        name="infc/tensorflow.proto", package=_PACKAGE, syntax="proto3"
    )
    for name, fields in _MESSAGES.items():
        row = file.message_type.add(name=name)
        for field, (number, kind) in fields.items():
            _declare(row, field, number, kind)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return pool


def _declare(message_type: Any, name: str, number: int, kind: str) -> None:
    from google.protobuf.descriptor_pb2 import FieldDescriptorProto as Field

    label, _, of = kind.rpartition(" ")
    field = message_type.field.add(name=name, number=number)
    field.label = Field.LABEL_REPEATED if label else Field.LABEL_OPTIONAL
    if label == "map":
        entry = message_type.nested_type.add(name=f"{_camel(name)}Entry")
        entry.options.map_entry = True
        _declare(entry, "key", 1, "string")
        _declare(entry, "value", 2, of)
        of = f"{message_type.name}.{entry.name}"
    scalar = getattr(Field, f"TYPE_{of.upper()}", None)
    if of == "string" and name != "key":
        scalar = Field.TYPE_BYTES  # names need not be UTF-8 in a hostile file
    if scalar is not None:
        field.type = scalar
    else:
        field.type = Field.TYPE_MESSAGE
        field.type_name = f".{_PACKAGE}.{of}"


def _camel(name: str) -> str:
    return "".join(part.capitalize() for part in name.split("_"))


def read(path: Path, name: str, *, is_text: bool = False) -> Any:
    """The message `name` in a file, in binary or in text form.

    Raises:
        InfcError: E117 where it does not parse.
    """
    size = path.stat().st_size
    if size > MAX_FILE_BYTES:
        raise damaged(str(path), f"a protocol buffer of {size:,} bytes cannot be read")
    return parse(path.read_bytes(), name, str(path), is_text=is_text)


def parse(data: bytes, name: str, label: str, *, is_text: bool = False) -> Any:
    """The message `name` in `data`; as `read`."""
    from google.protobuf import text_format
    from google.protobuf.message import DecodeError

    try:
        if is_text:
            text = data.decode("utf-8", "replace")
            return text_format.Parse(text, message(name)(), allow_unknown_field=True)
        return message(name).FromString(data)
    except (DecodeError, text_format.ParseError, RecursionError, ValueError) as error:
        what = str(error).partition("\n")[0] or type(error).__name__
        raise damaged(label, f"it does not parse: {what}") from error


def dtype(number: int) -> str:
    """The name of an element type."""
    return DTYPES.get(number % 100, f"type {number}")


def shape(proto: Any) -> tuple[int | str | None, ...] | None:
    """Of a `TensorShapeProto`."""
    from infc.frontends.containers.description import shape_of

    if proto.unknown_rank:
        return None
    return shape_of([dim.size for dim in proto.dim])
