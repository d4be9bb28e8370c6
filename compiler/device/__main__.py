"""`./finish`: build the bundle's engine here, verify it here, complete the bundle."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import completing
from .device_error import DeviceError
from .producing import Order, produce

if TYPE_CHECKING:
    from collections.abc import Mapping


def main() -> int:
    """The exit status: 0 ready, 1 failed, 2 usage, 3 not right or not verified, 4 missing."""
    parser = argparse.ArgumentParser(
        prog="./finish",
        description="Build this bundle's engine here, verify it here, and complete the bundle. "
        "A run that was interrupted is taken up where it was.",
    )
    parser.add_argument(
        "--stand-in", metavar="MODULE", help="build with this library in place of the target's"
    )
    parser.add_argument("--skip-verify", action="store_true", help="leave the engine unproved")
    parser.add_argument("--again", action="store_true", help="build a finished bundle once more")
    parser.add_argument("--timeout", type=float, metavar="SECONDS", help="for each step")
    parser.add_argument("--quiet", action="store_true", help="no log")
    given = parser.parse_args()
    bundle = Path(__file__).resolve().parent.parent
    try:
        return finish(bundle, given)
    except DeviceError as error:
        print(error.render(), file=sys.stderr)  # noqa: T201
        return error.exit_code
    except OSError as error:
        message = f"{error.filename or bundle}: {error.strerror or error}"
        print(DeviceError("disk", message).render(), file=sys.stderr)  # noqa: T201
        return 1
    except KeyboardInterrupt:
        print("interrupted; the bundle is as it was", file=sys.stderr)  # noqa: T201
        return 130


def finish(bundle: Path, given: argparse.Namespace) -> int:
    """Do it, and say what came of it.

    Raises:
        DeviceError: whatever keeps the bundle from being finished.
    """

    def log(line: str) -> None:
        if not given.quiet:
            print(line, file=sys.stderr, flush=True)  # noqa: T201

    with completing.held(bundle) as workshop:
        manifest = completing.read_manifest(bundle)
        if manifest["state"] == "ready" and not given.again:
            print(f"{bundle} is finished already")  # noqa: T201
            return 0
        log("checking the hashes")
        completing.check_hashes(bundle, manifest)
        completing.seed(bundle, manifest)
        order = Order(
            bundle, manifest, workshop, given.stand_in, not given.skip_verify, given.timeout
        )
        result = produce(order, log)
        state = completing.complete(bundle, manifest, result)
    return report(bundle, state, result, given)


def report(bundle: Path, state: str, result: Mapping[str, Any], given: argparse.Namespace) -> int:
    """Print what was built; 3 where nothing proves it and nobody asked for that."""
    latency, facts = result["latency"], result["facts"]
    engine = f"{facts['bytes']} bytes in {facts['seconds']} s"
    timed = f", {latency['median_ms']} ms a run" if latency else ""
    library = result["library"]
    print(f"{state}: {engine} with {library['module']} {library['version']}{timed}")  # noqa: T201
    for row in (result["comparison"] or {"outputs": ()})["outputs"]:
        print(f"  {json.dumps(row)}")  # noqa: T201
    if state != "built":
        return 0
    error = DeviceError(
        "unverified",
        f"the engine is built and not verified: {result['reason']}",
        "run ./finish on the device",
    )
    print(error.render().replace("error", "warning", given.skip_verify), file=sys.stderr)  # noqa: T201
    return 0 if given.skip_verify else error.exit_code


if __name__ == "__main__":
    sys.exit(main())
