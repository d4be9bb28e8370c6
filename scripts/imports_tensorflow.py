"""The subjects of `scripts/imports tensorflow`: real models, architectures by format, refusals."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

from imports import ROOT, Subject

from infc.import_options import ImportOptions

MODELS = Path(os.environ.get("INFC_MODELS", ROOT.parent / "shared" / "models"))
REAL = (
    *("hand_keypoint/keypoint_classifier.hdf5", "hand_keypoint/keypoint_classifier.tflite"),
    *("mlperf_tiny/pretrainedResnet.h5", "mlperf_tiny/pretrainedResnet.tflite"),
    *("mlperf_tiny/pretrainedResnet_quant.tflite", "mlperf_tiny/ad01.h5"),
    *("mlperf_tiny/ad01_fp32.tflite", "mlperf_tiny/ad01_int8.tflite"),
    *("dtln/model_1.tflite", "dtln/model_2.tflite", "dtln/dtln_saved_model"),
    *("fsrcnn/FSRCNN_x2.pb", "fsrcnn/FSRCNN-small_x2.pb"),
    "ultraface/version-RFB-320_without_postprocessing.tflite",
)
ARCHITECTURES = {
    "cnn": "CNN with BatchNorm",
    "mobilenet": "MobileNetV2",
    "rnn": "LSTM and GRU",
    "transformer": "transformer with GELU",
}
FORMS = {"keras": ".keras", "h5": ".h5", "": "", "pb": ".pb", "tflite": ".tflite"}
REFUSED = {
    "a Lambda layer": "lambda.keras",
    "a layer that Keras does not have": "custom.keras",
    "weights alone": "only.weights.h5",
    "a model that was never built": "unbuilt.keras",
    "text inputs": "text.keras",
    "state that a branch assigns": "sm_state_branch",
    "random numbers": "sm_noisy",
    "a file quantised to 16 bits": "int16.tflite",
    "a SavedModel without a signature": "sm_none",
    "several signatures": "sm_two",
    "a SavedModel that writes a file": "sm_writes",
    "operations without a counterpart": "sm_unsupported",
    "a graph that is not frozen": "unfrozen.pb",
    "an operator of a third party": "third_party.pb",
    "an input of unknown rank": "no_rank.pb",
}


def subjects(scratch: Path) -> Iterator[Subject]:
    """Real models, then each architecture in each format that can hold it, then refusals."""
    sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "tests" / "frontends")]
    import tensorflow_session

    for name in REAL:
        if (MODELS / name).exists():
            yield Subject(name, str(MODELS / name))
    zoo = tensorflow_session.zoo()
    for stem, title in ARCHITECTURES.items():
        for form, suffix in FORMS.items():
            path = zoo / f"{stem}{suffix}"
            if path.exists():
                yield Subject(f"{title}, {form or 'SavedModel'}", str(path))
    yield Subject(
        "MobileNetV2, --layout nchw",
        str(zoo / "mobilenet.keras"),
        options=ImportOptions(layout="nchw"),
    )
    yield Subject("a stateful LSTM, keras", str(zoo / "stateful_lstm.keras"))
    yield Subject("a stateful GRU, keras", str(zoo / "stateful_gru.keras"))
    yield Subject("phases of a spectrum, SavedModel", str(zoo / "sm_state_spectrum"))
    for what, name in REFUSED.items():
        yield Subject(what, str(zoo / name))
