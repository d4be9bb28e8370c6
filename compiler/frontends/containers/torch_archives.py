"""The zip archives of PyTorch: everything in one folder, which is named by the first entry.

Source: caffe2/serialize/inline_container.cc, `PyTorchStreamReader::init`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path

from infc.frontends.containers import archives
from infc.frontends.containers.archives import Archive

MAX_DEPTH = 2
"""A torch.export archive holds pickles that are archives of their own."""
MAX_TEXT_BYTES = 64 << 20
_PICKLES = (".pkl", ".debug_pkl")


class TorchArchive:
    """An open archive; names are those below its folder."""

    def __init__(self, archive: Archive, depth: int = 0) -> None:
        self._archive = archive
        self._depth = depth
        self.root = archive.names[0].partition("/")[0] if archive.names else ""
        prefix = f"{self.root}/"
        stray = [name for name in archive.names if not name.startswith(prefix)]
        if stray and "serialized_exported_program.json" in archive.names:
            prefix, stray = "", []  # torch.export before 2.8 had no folder
        if stray:
            raise archives.unsafe(archive.label, f"`{stray[0]}` lies beside its folder")
        self._prefix = prefix
        self.sizes = {name[len(prefix) :]: size for name, size in archive.sizes.items()}

    @property
    def label(self) -> str:
        """How messages name the archive."""
        return self._archive.label

    @property
    def is_torchscript(self) -> bool:
        """Whether `torch.load` takes it for TorchScript: this is what it looks for."""
        return "constants.pkl" in self.sizes

    def has(self, name: str) -> bool:
        """Whether there is an entry `name`, or a folder `name/`."""
        if name.endswith("/"):
            return any(entry.startswith(name) for entry in self.sizes)
        return name in self.sizes

    def under(self, folder: str, suffix: str = "") -> list[str]:
        """The names of the entries in `folder/`."""
        return [n for n in self.sizes if n.startswith(f"{folder}/") and n.endswith(suffix)]

    def read(self, name: str, limit: int) -> bytes:
        """The content of an entry; as `Archive.read`."""
        return self._archive.read(self._prefix + name, limit)

    def text(self, name: str) -> str:
        """The content of a short entry as text, "" where there is none.

        Raises:
            InfcError: E116 where it is not short, E117 where it is damaged.
        """
        if name not in self.sizes:
            return ""
        return self.read(name, MAX_TEXT_BYTES).decode("utf-8", "backslashreplace").strip()

    def pickles(self, limit: int, but: str = "") -> Iterator[bytes]:
        """The pickles in it and in the archives in it, `but` for the entry of that name.

        Each may have up to `limit` bytes.

        Raises:
            InfcError: E116 where one is larger or not safe to open, E117 where one is damaged.
        """
        for name in self.sizes:
            if name.endswith(_PICKLES) and name != but:
                yield self.read(name, limit)
        for name in dict.fromkeys([*self._pickled_payloads(), *self._nested()]):
            data = self.read(name, limit)
            if data.startswith(archives.LOCAL_HEADER):
                yield from self._inner(name, data, limit)
            elif data:
                yield data

    def _inner(self, name: str, data: bytes, limit: int) -> Iterator[bytes]:
        if self._depth + 1 >= MAX_DEPTH:
            raise archives.unsafe(self.label, f"`{name}` is an archive in an archive in it")
        with archives.open_sane(BytesIO(data), f"{self.label}:{name}") as archive:
            yield from TorchArchive(archive, self._depth + 1).pickles(limit)

    def _nested(self) -> Iterator[str]:
        """What `torch.save` wrote into a torch.export archive."""
        return (name for name in self.sizes if name.endswith((".pt", ".pth")))

    def _pickled_payloads(self) -> Iterator[str]:
        """Weights and constants that are pickled, torch/export/pt2_archive/_package.py."""
        for name in self.sizes:
            folder, _, last = name.rpartition("/")
            if folder in ("data/weights", "data/constants") and last.endswith(".json"):
                try:
                    rows = json.loads(self.text(name))["config"].values()
                    paths = [row["path_name"] for row in rows if row.get("use_pickle")]
                except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
                    raise archives.damaged(self.label, f"`{name}` cannot be read") from error
                yield from (p for path in paths if (p := f"{folder}/{path}") in self.sizes)
            elif last.startswith("custom_obj_"):
                yield name


@contextmanager
def open_archive(path: Path) -> Iterator[TorchArchive]:
    """The archive `path`, checked.

    Raises:
        InfcError: E116 where it is not safe to open, E117 where it is damaged.
    """
    with archives.open_sane(path) as archive:
        yield TorchArchive(archive)
