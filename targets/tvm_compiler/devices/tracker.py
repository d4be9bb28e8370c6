"""`python -m infc.targets.tvm_compiler.devices.tracker`: TVM's tracker, in this process.

TVM starts it in a process of its own, which stays when its parent is killed, and binds it to every
address. A tracker hands out devices; it executes nothing itself.
"""

from __future__ import annotations

import argparse
import signal
import socket
import sys

from infc.targets.tvm_compiler.devices.address import PORT


def main() -> int:
    """Serve until SIGINT or SIGTERM."""
    parser = argparse.ArgumentParser(prog="infc device tracker")
    parser.add_argument("--bind", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=PORT)
    options = parser.parse_args()
    from tornado import ioloop
    from tvm.rpc.tracker import TrackerServerHandler

    family = socket.AF_INET6 if ":" in options.bind else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((options.bind, options.port))
    except (OSError, OverflowError) as error:
        print(f"{options.bind}:{options.port}: {error}", file=sys.stderr)  # noqa: T201
        return 1
    listener.listen(32)

    async def serve() -> None:
        import asyncio

        # It keeps the loop that it is made in, and needs no more than that.
        TrackerServerHandler(listener, "")
        ended = asyncio.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, ended.set)
        print(f"listening on {options.bind}:{listener.getsockname()[1]}", flush=True)  # noqa: T201
        await ended.wait()

    ioloop.IOLoop.current().run_sync(serve)
    return 0


if __name__ == "__main__":
    sys.exit(main())
