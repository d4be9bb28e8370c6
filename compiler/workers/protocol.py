"""The worker's side of the protocol, for any interpreter from Python 3.7 on.

Run as a program, `python protocol.py JOB`, it takes its limits on itself, finds the action that
the job names, and writes the result beside the job in one rename, so that a result that exists is
whole. The actions come from a *script* (a file that defines `ACTIONS` and needs no more than its
own environment has) or from a *module* of infc (`infc.workers.child`).

Only the standard library, in the syntax of Python 3.7: MindSpore Lite's wheel needs that one.
"""

import ctypes
import importlib.machinery
import importlib.util
import json
import os
import resource
import signal
import sys
import traceback
from typing import Any, Callable, Dict, List, Mapping, Optional  # noqa: UP035

PROTOCOL = 1
PROGRESS = "INFC_WORKER_PROGRESS"
"""Environment variable: the file that `report` writes."""
PR_SET_PDEATHSIG = 1
ADDR_NO_RANDOMIZE = 0x0040000

Action = Callable[[Mapping[str, Any]], Dict[str, Any]]  # noqa: UP006


def main() -> None:
    """Do the job named on the command line; the exit status says only whether it ran."""
    with open(sys.argv[1], encoding="utf-8") as stream:  # noqa: PTH123
        job = json.load(stream)
    if job.get("fixed_addresses"):
        _fix_addresses()
    _take_limits(job["memory_bytes"])
    for module in job.get("without", ()):
        sys.modules[module] = None  # type: ignore[assignment]  # an ImportError for who asks
    try:
        answer = {"ok": True, "value": _actions(job)[job["action"]](job["payload"])}
    except Exception as error:
        answer = dict(_describe(error), ok=False, traceback=traceback.format_exc())
    _write(job["result"], dict(answer, protocol=PROTOCOL))
    sys.stdout.flush()
    sys.stderr.flush()
    # Some runtimes crash in their static destructors; the answer is written, so leave at once.
    os._exit(0)


def report(**values: Any) -> None:
    """Tell the driver how far the job is: `report(done=3, total=128)`."""
    path = os.environ.get(PROGRESS)
    if path:
        _write(path, values)


def _write(path: str, document: Mapping[str, Any]) -> None:
    partial = path + ".partial"
    with open(partial, "w", encoding="utf-8") as stream:  # noqa: PTH123
        json.dump(document, stream)
    os.replace(partial, path)  # noqa: PTH105


def _fix_addresses() -> None:
    """Start this program again without randomised addresses, where the system lets it.

    Containers may forbid it (seccomp); the job is done all the same then. Source: personality(2).
    """
    if sys.platform != "linux":
        return
    libc = ctypes.CDLL(None)
    now = libc.personality(ctypes.c_ulong(0xFFFFFFFF))
    if now == -1 or now & ADDR_NO_RANDOMIZE:
        return
    if libc.personality(ctypes.c_ulong(now | ADDR_NO_RANDOMIZE)) != -1:
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])  # Python 3.10


def _take_limits(memory_bytes: Optional[int]) -> None:  # noqa: UP045
    """Die with the driver, and fail to allocate above `memory_bytes`."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if memory_bytes is not None:
        resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _actions(job: Mapping[str, Any]) -> Mapping[str, Action]:
    if job.get("script"):
        spec = importlib.util.spec_from_file_location("infc_worker_script", job["script"])
        assert spec is not None and spec.loader is not None
        script = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(script)
        found: Mapping[str, Action] = script.ACTIONS
        return found
    if job.get("packages"):
        sys.meta_path.insert(0, _Packages(job["packages"]))
    from infc.workers.child import actions

    return actions(job["module"])


class _Packages:
    """Finds infc's packages where the driver has them: this environment has no infc of its own."""

    def __init__(self, folders: Mapping[str, str]) -> None:
        self._folders = folders

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        """The spec of a package that the driver named; anything else is for other finders."""
        folder = self._folders.get(name)
        if folder is None:
            return None
        file = os.path.join(folder, "__init__.py")  # noqa: PTH118
        return importlib.util.spec_from_file_location(
            name, file, submodule_search_locations=[folder]
        )


def _describe(error: Exception) -> Dict[str, Any]:  # noqa: UP006
    """What went wrong, in JSON; a script's exceptions are known by their names alone."""
    names = [kind.__name__ for kind in type(error).__mro__]
    kinds = {
        "BackEndError": "refused",
        "ModuleNotFoundError": "missing",
        "MemoryError": "memory",
        "InfcError": "diagnosed",
    }
    kind = next((kinds[name] for name in names if name in kinds), "error")
    found: Dict[str, Any] = {"kind": kind, "type": names[0], "message": str(error)}  # noqa: UP006
    if kind == "diagnosed":
        rows: List[Any] = [d.to_json() for d in error.diagnostics]  # type: ignore[attr-defined]  # noqa: UP006
        found["diagnostics"] = rows
    return found


if __name__ == "__main__":
    main()
