"""What the user decides about a packaged model, beyond what its bundle says."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from infc.diagnostics import fail

POLICY = re.compile(r"all|latest(:[1-9]\d{0,5})?|[1-9]\d{0,8}(,[1-9]\d{0,8})*")


@dataclass(frozen=True, slots=True)
class Settings:
    """`None` leaves a thing to the bundle, or to what the repository has already.

    `max_batch` of 0 puts no requests together. `queue_delay_us` is how long a request waits for
    others, in microseconds. `serve` is `all`, `latest`, `latest:N` or numbers of versions.
    `cuda_graphs` is for TensorRT.
    """

    max_batch: int | None = None
    preferred_batch: tuple[int, ...] | None = None
    queue_delay_us: int | None = None
    instances: int | None = None
    kind: str | None = None
    gpus: tuple[int, ...] | None = None
    serve: str | None = None
    threads: int | None = None
    cuda_graphs: bool | None = None
    warmup: bool | None = None

    def __post_init__(self) -> None:
        if self.serve is not None and not POLICY.fullmatch(self.serve):
            raise fail(
                "E110",
                f"`--serve {self.serve}` says nothing",
                help="it is `all`, `latest`, `latest:2`, or versions: `1,3`",
            )
        least = {"max_batch": 0, "queue_delay_us": 0, "instances": 1, "threads": 0}
        for name, low in least.items():
            value = getattr(self, name)
            if value is not None and not low <= value < 2**31:
                option = name.replace("_", "-")
                raise fail("E110", f"{value} for `{option}` is not a number from {low} on")
        if any(size < 1 for size in self.preferred_batch or ()):
            raise fail("E110", "a preferred batch size is a number from 1 on")

    def over(self, older: Settings) -> Settings:
        """These, and where they say nothing, `older`."""
        return Settings(
            **{
                f.name: getattr(older if getattr(self, f.name) is None else self, f.name)
                for f in fields(self)
            }
        )

    def to_json(self) -> dict[str, Any]:
        """What is said, for the repository's record."""
        rows = ((k, v) for k, v in asdict(self).items() if v is not None)
        return {k: list(v) if isinstance(v, tuple) else v for k, v in rows}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Settings:
        """The inverse of `to_json`."""
        rows: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in data.items()}
        return cls(**rows)
