"""Bundles as models of a server: `infc package`, and `infc compile --package`.

    bundle -> Triton's back end -> interface -> config.pbtxt, warm-up -> a version in the repository

README.md in this folder says what is decided, and how.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from infc import bundle
from infc.bundle import Bundle
from infc.deferral import require_finished
from infc.diagnostics import fail
from infc.packaging import repository, warmup
from infc.packaging.adding import digests, publish
from infc.packaging.config import ModelConfig
from infc.packaging.fitting import require_batches, require_same
from infc.packaging.interface import interface_of
from infc.packaging.repository import Record
from infc.packaging.serving import Serving, require_types, serving_of
from infc.packaging.settings import Settings
from infc.targets import Target

FORMATS = ("triton",)
"""What `--package` and `--as` may name."""


@dataclass(frozen=True, slots=True)
class Packaged:
    """A version in a model repository; `changed` where anything there was not as it is now.

    `versions` are all that are there. `remarks` is what there is to know besides.
    """

    bundle: Path
    repository: Path
    name: str
    version: int
    changed: bool
    backend: str
    max_batch: int
    versions: tuple[int, ...]
    remarks: tuple[str, ...] = ()


def package(
    path: Path,
    destination: Path,
    *,
    name: str | None = None,
    version: int | None = None,
    settings: Settings = Settings(),  # noqa: B008
    keep_config: bool = False,
) -> Packaged:
    """Add the bundle at `path` to the model repository `destination`, as a version of its own.

    `name` is the model's, the bundle's by default; `version` a number that is free, the next one
    by default. `keep_config` leaves a configuration that is there as it is, whoever changed it.

    Raises:
        InfcError: E702 and E707 for a bundle that is damaged or not finished, E708 where Triton
            cannot serve it, E709 where it does not fit what is there, E701.
    """
    subject = bundle.open_bundle(path)
    require_finished(subject)
    target = Target.from_json(subject.manifest["target"])
    serving = serving_of(target)
    require_types(subject, serving)
    model_name = _name(name or subject.name)
    if version is not None and not 1 <= version < 2**31:
        raise fail("E110", f"`--version {version}`: versions are numbers from 1 on")
    with repository.locked(destination):
        model = destination / model_name
        record = repository.read_record(model)
        older = Settings.from_json(record.settings) if record is not None else Settings()
        kept = record.max_batch if record is not None else None
        made = _configured(subject, target, serving, model_name, settings.over(older), kept)
        if record is not None:
            require_same(model, record, made)
            require_batches(record, made)
        known = _known(model, record, subject) if record is not None else None
        number = known if known and version in (None, known) else _number(model, version)
        with bundle.staging(repository.stage_folder(destination)) as stage:
            changed = publish(subject, made, model, record, number, stage, keep_config=keep_config)
        return _result(subject, destination, made, number, model, changed)


def package_all(
    paths: Sequence[Path],
    destination: Path,
    *,
    name: str | None = None,
    version: int | None = None,
    settings: Settings = Settings(),  # noqa: B008
    keep_config: bool = False,
) -> list[Packaged]:
    """Add several bundles, in order; those before one that is refused stay.

    Raises:
        InfcError: as `package`; E110 for one number for several bundles of one model.
    """
    if len(paths) > 1 and version is not None:
        raise fail("E110", f"`--version {version}` is one number, for {len(paths)} bundles")
    more: dict[str, Any] = {
        "name": name,
        "version": version,
        "settings": settings,
        "keep_config": keep_config,
    }
    return [package(path, destination, **more) for path in paths]


def require_servable(targets: Sequence[Target]) -> None:
    """Refuse, before anything is built, targets whose bundles Triton cannot serve.

    Raises:
        InfcError: E708.
    """
    for target in targets:
        serving_of(target)


def _name(name: str) -> str:
    """The model's name, which is that of a folder.

    Raises:
        InfcError: E110.
    """
    if "/" in name or name in ("", ".", "..") or name.startswith(".") or not name.isprintable():
        raise fail("E110", f"`--name {name}` does not name a model")
    return name


def _configured(
    subject: Bundle,
    target: Target,
    serving: Serving,
    name: str,
    settings: Settings,
    kept: int | None,
) -> ModelConfig:
    """The configuration of the model with this bundle as a version; `kept` is its batch so far.

    Raises:
        InfcError: E708.
    """
    _require_settings(serving, settings)
    interface = interface_of(subject, serving, settings.max_batch, kept)
    for size in settings.preferred_batch or ():
        if size > interface.max_batch:
            raise fail(
                "E708",
                f"a preferred batch of {size} is more than the greatest, {interface.max_batch}",
                help="give `--max-batch-size`, or a smaller `--preferred-batch-size`",
            )
    parameters = dict(serving.parameters(target, interface.max_batch > 0))
    if settings.threads is not None:
        parameters[serving.threads] = str(settings.threads)
    entry = subject.entry.name
    file = entry if target.back_end != "tensorrt" and entry != serving.file else ""
    return ModelConfig(
        name,
        serving,
        interface,
        settings,
        file,
        dict(sorted(parameters.items())),
        serving.level(target, entry),
        _profiles(subject, target),
        warmup.warmups_of(subject, interface) if settings.warmup is not False else (),
    )


def _require_settings(serving: Serving, settings: Settings) -> None:
    """Raise E708 for what the back end of Triton's has no setting for."""
    if settings.kind is not None and settings.kind not in serving.kinds:
        raise fail(
            "E708",
            f"Triton's back end `{serving.backend}` runs these artifacts on "
            f"{' or '.join(serving.kinds)} instances, not `--kind {settings.kind}`",
        )
    kind = settings.kind or serving.kinds[0]
    if settings.gpus and kind != "gpu":
        raise fail("E708", f"`--gpu` names GPUs, and the instances are of kind `{kind}`")
    if settings.threads is not None and not serving.threads:
        raise fail("E708", f"Triton's back end `{serving.backend}` has no number of threads")
    if settings.cuda_graphs and serving.backend != "tensorrt":
        raise fail("E708", f"Triton's back end `{serving.backend}` has no `--cuda-graphs`")


def _profiles(subject: Bundle, target: Target) -> int:
    """How many optimization profiles an engine has; 0 for what has none."""
    if target.back_end != "tensorrt":
        return 0
    from infc.targets.tensorrt_spec import spec_of

    rows = spec_of(target, subject.inputs, subject.outputs)["inputs"]
    return max((len(row.get("profiles", ())) for row in rows), default=0)


def _known(model: Path, record: Record, subject: Bundle) -> int | None:
    """The version that holds this very artifact; None where none does."""
    wanted, there = sorted(digests(subject).values()), repository.present(model)
    for number, row in record.versions.items():
        if int(number) in there and sorted(row["files"].values()) == wanted:
            return int(number)
    return None


def _number(model: Path, version: int | None) -> int:
    """The number of the new version.

    Raises:
        InfcError: E709 where it is taken.
    """
    there = repository.present(model)
    if version is None:
        return 1 + max(there, default=0)
    if version in there:
        raise fail(
            "E709",
            f"`{model / str(version)}` is there, and holds another artifact",
            help=f"leave `--version` out for the next free one: {1 + max(there)}",
        )
    return version


def _result(
    subject: Bundle,
    destination: Path,
    made: ModelConfig,
    number: int,
    model: Path,
    changed: bool,
) -> Packaged:
    remarks = []
    proof = subject.manifest["verification"]
    if proof["verdict"] != "passed":
        why = f"{proof['verdict']}: {proof['reason']}" if "reason" in proof else proof["verdict"]
        remarks.append(f"nothing proves that the artifact answers as its source ({why})")
    options = subject.manifest["target"]["options"]
    if made.serving.backend == "tensorrt" and options.get("version-compatible") == "on":
        remarks.append("start the server with --backend-config=tensorrt,version-compatible=true")
    return Packaged(
        subject.path,
        destination,
        made.name,
        number,
        changed,
        made.serving.backend,
        made.interface.max_batch,
        tuple(repository.present(model)),
        tuple(remarks),
    )
