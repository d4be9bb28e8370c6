#!/usr/bin/env python3
"""Print what CMake has to be told about a bundle's runtime, where pip installed it, a flag a line.

sdk.py BUNDLE
"""

from __future__ import annotations

import sys
from pathlib import Path

from infc.bundle import open_bundle
from infc.diagnostics import InfcError
from infc.targets import Target, back_end


def main() -> int:
    if len(sys.argv) != 2:
        print("usage: sdk.py BUNDLE", file=sys.stderr)
        return 2
    try:
        target = Target.from_json(open_bundle(Path(sys.argv[1])).manifest["target"])
        for name, value in back_end(target.back_end).LOADER.sdk().items():
            print(f"-D{name}={value}")
    except InfcError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
