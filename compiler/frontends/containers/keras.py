"""Keras 3 archives (.keras): a zip of configuration, metadata and weights.

    metadata.json       {"keras_version": ..., "date_saved": ...}
    config.json         the model (`keras_config`)
    model.weights.h5    the weights (`hdf5`)
    assets/             files of preprocessing layers

Source: keras/src/saving/saving_lib.py.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from infc.frontends.containers import archives, hdf5, keras_config
from infc.frontends.containers.archives import Archive, damaged
from infc.frontends.containers.description import Description, Weights

CONFIG = "config.json"
METADATA = "metadata.json"
WEIGHTS = "model.weights.h5"


def describe(path: Path) -> Description:
    """The model in `path`; its weights are counted where h5py is installed.

    Raises:
        InfcError: E116 where it is not safe to open, E117 where it is damaged.
    """
    with archives.open_sane(path) as archive:
        config = _config(archive)
        version = _version(archive)
        has_weights = WEIGHTS in archive.names
        size = archive.sizes.get(WEIGHTS, 0)
    inputs, outputs = keras_config.signature_of(config)
    read = has_weights and hdf5.is_readable()
    tensors = hdf5.read(path, WEIGHTS).datasets if read else []
    return Description(
        "keras",
        f"Keras {config.get('class_name')} model",
        version=f"Keras {version}" if version else "",
        inputs=inputs,
        outputs=outputs,
        weights=Weights.of(tensors) if read else None,
        tensors=tensors,
        operators=keras_config.layers_of(config),
        details={} if read else {"weights": f"{size:,} bytes"},
        unsafe=keras_config.code_in(config),
    )


def require_sound(path: Path, allow_code: bool) -> None:
    """Refuse an archive that is not safe to open, or whose model would run code when loaded.

    The weights are looked at where h5py is installed.

    Raises:
        InfcError: E113 unless `allow_code`, E116, E117.
    """
    with archives.open_sane(path) as archive:
        keras_config.require_harmless(_config(archive), path, allow_code)
        has_weights = WEIGHTS in archive.names
    if has_weights and hdf5.is_readable():
        hdf5.read(path, WEIGHTS)


def _config(archive: Archive) -> dict[str, Any]:
    if CONFIG not in archive.names:
        raise damaged(archive.label, f"it has no `{CONFIG}`")
    data = archive.read(CONFIG, keras_config.MAX_CONFIG_BYTES)
    return keras_config.parse(data, archive.label)


def _version(archive: Archive) -> str:
    if METADATA not in archive.names:
        return ""
    try:
        metadata = json.loads(archive.read(METADATA, 1 << 20))
    except (ValueError, RecursionError) as error:
        raise damaged(archive.label, f"its `{METADATA}` is no JSON") from error
    version = metadata.get("keras_version") if isinstance(metadata, dict) else None
    return version if isinstance(version, str) else ""
