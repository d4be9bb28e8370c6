"""What every test may ask for: the real models, and tools that may be missing.

Nothing of the user's own is seen or written: the run has an `INFC_HOME` of its own, with a cache
that its processes share, in which the toolchains that are installed are linked to.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import NoReturn

import pytest

ROOT = Path(__file__).resolve().parent.parent
REQUIRE_ALL = os.environ.get("INFC_REQUIRE_ALL") == "1"


def pytest_configure(config: pytest.Config) -> None:
    if hasattr(config, "workerinput"):
        return  # a process of pytest-xdist, which has the environment of the one that started it
    from infc.places import data_folder

    toolchains = data_folder() / "toolchains"
    home = Path(tempfile.mkdtemp(prefix="infc-tests-"))
    if toolchains.is_dir():
        (home / "toolchains").symlink_to(toolchains)
    own = pytest.MonkeyPatch()
    own.setenv("INFC_HOME", str(home))
    config.add_cleanup(lambda: shutil.rmtree(home, ignore_errors=True))
    config.add_cleanup(own.undo)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What is made once for a file is made in one process: its tests go to the same one."""
    for item in items:
        file = item.nodeid.partition("::")[0]
        fixtures = getattr(item, "_fixtureinfo", None)
        if fixtures is None or item.get_closest_marker("xdist_group") is not None:
            continue
        named = (found[-1] for found in fixtures.name2fixturedefs.values())
        if any(f.baseid == file and f.scope in ("module", "session") for f in named):
            item.add_marker(pytest.mark.xdist_group(file))


def missing(what: str) -> NoReturn:
    """Skip, naming what is missing; fail instead where INFC_REQUIRE_ALL=1."""
    if REQUIRE_ALL:
        pytest.fail(f"missing, and INFC_REQUIRE_ALL=1: {what}")
    pytest.skip(f"missing: {what}")


@pytest.fixture(scope="session")
def models() -> Path:
    """The folder of real models (`INFC_MODELS`, default ../shared/models)."""
    folder = Path(os.environ.get("INFC_MODELS", ROOT.parent / "shared" / "models"))
    if not folder.is_dir():
        pytest.skip(f"missing: the real models folder {folder.name} (INFC_MODELS)")
    return folder


@pytest.fixture(scope="session")
def need_module() -> Callable[[str], None]:
    """`need_module("openvino")` skips (or fails) where the module is not installed."""

    def need(name: str) -> None:
        if find_spec(name) is None:
            missing(f"the Python module {name}")

    return need


@pytest.fixture(scope="session")
def need_back_end() -> Callable[[str], None]:
    """`need_back_end("mindspore-lite")` skips (or fails) where its modules or toolchain are not."""

    def need(name: str) -> None:
        import verdicts

        from infc import doctor, targets

        if verdicts.expected(name) == "deferred":
            return  # nothing of it has to be here
        if not doctor.available(targets.look_up(name)):
            missing(f"the back end {name} (`infc doctor {name}`)")

    return need


@pytest.fixture(scope="session")
def need_running(need_back_end: Callable[[str], None]) -> Callable[[str], None]:
    """`need_running("tensorrt-rtx")` skips where its artifacts cannot run, as without a GPU.

    INFC_REQUIRE_ALL=1 does not make a failure of that: no package is a GPU.
    """

    def need(name: str) -> None:
        from infc import targets
        from infc.targets.abilities import absence_of

        absence = absence_of(targets.back_end(name), targets.look_up(name))
        if absence:
            pytest.skip(f"artifacts of {name} do not run here: {absence}")
        need_back_end(name)

    return need


@pytest.fixture(scope="session")
def need_tool() -> Callable[[str], str]:
    """`need_tool("javac")` returns the path of a program or skips (or fails)."""

    def need(name: str) -> str:
        path = shutil.which(name)
        return path if path is not None else missing(f"the program {name}")

    return need
