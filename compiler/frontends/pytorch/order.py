"""What the driver asks of the worker: the payload of `import`, and what `open` needs of it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from infc.frontends.sniff import Kind
from infc.import_options import ImportOptions
from infc.input_spec import Dim, InputSpec

RECORD, STATE = "reference.json", "state.pt"
"""What `open` is given: the order, and the weights that the export was made with."""


@dataclass(frozen=True, slots=True)
class Order:
    """A model to import.

    `path` is a file or `package.module:factory`; what is relative in it and in the options is
    meant from `home`, the folder in which `infc` was called.
    """

    path: str
    kind: Kind
    home: Path
    options: ImportOptions
    inputs: tuple[InputSpec, ...]

    @classmethod
    def of(cls, payload: Mapping[str, Any]) -> Order:
        """The order in the payload of `import`, or as `save` wrote it."""
        options = dict(payload["options"])
        allow_pickle = options.pop("allow_pickle")
        specs = (
            InputSpec(row["name"], tuple(Dim(**dim) for dim in row["dims"]), row["dtype"])
            for row in payload["inputs"]
        )
        return cls(
            payload["path"],
            Kind[payload["kind"]],
            Path(payload["home"]),
            ImportOptions.from_json(options, allow_pickle=allow_pickle),
            tuple(specs),
        )

    def save(self, folder: Path) -> Path:
        """Write the order into `folder`, for `open`."""
        document = {
            "path": self.path,
            "kind": self.kind.name,
            "home": str(self.home),
            "options": {**self.options.to_json(), "allow_pickle": self.options.allow_pickle},
            "inputs": [asdict(spec) for spec in self.inputs],
        }
        path = folder / RECORD
        path.write_text(json.dumps(document, indent=1), encoding="utf-8")
        return path

    @property
    def title(self) -> str:
        """The last part of `path`, for messages."""
        return self.path if self.kind is Kind.PYTHON else Path(self.path).name
