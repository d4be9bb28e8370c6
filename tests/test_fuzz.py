"""2,000 mutated models: infc refuses them or takes them, and does nothing else.

`scripts/fuzz` runs more of them, or one again; see `fuzzing`.
"""

from __future__ import annotations

import random
from importlib.util import find_spec

import container_files
import container_fuzzing
import pytest
from conftest import missing
from fuzzing import MODELS, REAL_MODELS, fuzz, mutate, write_model

RUNS = 2000
PARTS = 4


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("part", range(PARTS))
@pytest.mark.parametrize("name", MODELS)
def test_mutations(name: str, part: int) -> None:
    count = -(-RUNS // (len(MODELS) * PARTS))
    tally = fuzz(name, range(part * count, (part + 1) * count))
    assert tally.findings == []
    assert sum(tally.outcomes.values()) == count
    # A fuzzer that only ever sees the front door proves little.
    assert tally.outcomes["ok"] >= count // 10, tally.outcomes
    assert len(tally.outcomes) >= 3, tally.outcomes


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", container_fuzzing.NAMES)
def test_mutations_of_containers(name: str) -> None:
    """Inspected and judged as before an import; no framework is started."""
    needed = container_files.FILES[name][2] if name in container_files.FILES else ""
    if needed and find_spec(needed) is None:
        missing(f"the Python module {needed}")
    if name in container_fuzzing.REAL and not REAL_MODELS.is_dir():
        missing("the real models folder (INFC_MODELS)")
    tally = fuzz(name, range(60), container_fuzzing.run_case)
    assert tally.findings == []
    assert len(tally.outcomes) >= 2, tally.outcomes
    assert set(tally.outcomes) <= {"ok", "E101", "E102", "E113", "E116", "E117"}, tally.outcomes


def test_no_pass_fails_on_a_mutation() -> None:
    """E301 is an answer, but it says that infc has a bug."""
    for name in MODELS:
        assert fuzz(name, range(10_000, 10_060)).pass_failures == {}


def test_a_case_is_the_same_every_time(tmp_path) -> None:  # type: ignore[no-untyped-def]
    for name in MODELS:
        data = write_model(name, tmp_path)
        first, second = (mutate(data, random.Random("7")) for _ in range(2))
        assert first == second
        assert first != data


def test_crash_and_hang_are_findings_with_their_seed(monkeypatch: pytest.MonkeyPatch) -> None:
    import ctypes

    import fuzzing

    seen = []

    def misbehave(path: object) -> tuple[str, str]:
        seen.append(path)
        if len(seen) == 2:
            ctypes.string_at(0)
        if len(seen) == 3:
            raise RuntimeError("uncaught")
        return "ok", ""

    monkeypatch.setattr(fuzzing, "CASE_TIMEOUT_S", 1)
    tally = fuzz("cnn", range(3), misbehave)
    assert tally.findings == ["cnn 1: crash: exit -11"]
    assert tally.outcomes == {"ok": 2, "crash": 1}
