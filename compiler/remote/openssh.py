"""OpenSSH's `ssh`, started so that it asks nothing, and what its failures mean.

The user's own configuration holds: keys, agents, jump hosts, multiplexing. What infc adds: the host
key is checked, always; a connection that is dead is noticed; a password is taken from SSH_ASKPASS
or not at all. `INFC_SSH` in the environment is another command than `ssh`, with options of its own.

Source: ssh(1), ssh_config(5).
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from infc.diagnostics import InfcError, fail
from infc.remote.address import Address

CONNECT_S = 15
ALIVE_S, ALIVE_COUNT = 15, 3
"""ssh gives up on a machine that has not answered for `ALIVE_S * ALIVE_COUNT` seconds."""
OWN_FAILURE = 255
"""The exit status of ssh itself, and not of what it runs."""
NO_PROGRAM = (126, 127)
OLD_PYTHON = 89

BOOT = (
    "import sys;sys.version_info>=(3,8) or sys.exit(89);"
    "exec(sys.stdin.buffer.read(int(sys.stdin.buffer.readline())))"
)
"""What Python is started with there: it reads the program that it is to be. No shell that may be a
user's (sh, csh, fish) finds anything to expand in it between double quotes."""


@dataclass(frozen=True, slots=True)
class _Meaning:
    """A failure of ssh's that says `pattern`."""

    pattern: str
    message: str
    help: str


_REFUSALS = (
    _Meaning(
        r"IDENTIFICATION HAS CHANGED|Host key for .* has changed",
        "the host key of `{address}` is not the one in known_hosts",
        "somebody else may be answering; where the machine was installed anew, remove the old key "
        "with `ssh-keygen -R {host}`, and look at the new one before you accept it",
    ),
    _Meaning(
        r"Host key verification failed|host key is known for|REVOKED HOST KEY",
        "the host key of `{address}` is not known here",
        "look at it and accept it once with `ssh {words} true`",
    ),
    _Meaning(
        r"Permission denied|Too many authentication failures|No supported authentication",
        "`{address}` accepts none of your keys",
        "install one with `ssh-copy-id`, add it to the agent with `ssh-add`, or let SSH_ASKPASS "
        "name a program that prints the password: infc asks no questions",
    ),
    _Meaning(
        r"Could not resolve hostname|Name or service not known",
        "there is no machine `{host}`",
        "give its address, or a Host of your ssh configuration",
    ),
    _Meaning(
        r"Connection refused|No route to host|Network is unreachable|timed out|"
        r"Connection closed by .* port|kex_exchange_identification",
        "`{address}` does not answer",
        "is it on, and does sshd listen there? `ssh {words} true` has to work",
    ),
)


def start(address: Address, errors: IO[bytes]) -> subprocess.Popen[bytes]:
    """Start Python there with `BOOT`, its standard input and output as pipes.

    Raises:
        InfcError: E501 where there is no ssh here.
    """
    command = [*_ssh(), "-T", *_options(address), *address.words, f'python3 -u -c "{BOOT}"']
    try:
        return subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            env=_environment(),
            start_new_session=True,  # without a terminal to ask on, and out of reach of Ctrl-C
        )
    except OSError as error:
        raise fail(
            "E501",
            f"`{command[0]}` cannot be started: {error.strerror}",
            help="apt-get install openssh-client",
        ) from error


def _ssh() -> list[str]:
    return shlex.split(os.environ.get("INFC_SSH", "")) or ["ssh"]


def _options(address: Address) -> list[str]:
    """What is added to the user's configuration, or stands above it."""
    given = _configured(address)
    options = {
        "BatchMode": "no" if _asks() else "yes",
        "StrictHostKeyChecking": "accept-new"
        if given.get("stricthostkeychecking") == "accept-new"
        else "yes",
        "ForwardX11": "no",
        "ForwardAgent": "no",
        "ClearAllForwardings": "yes",
        "PermitLocalCommand": "no",
        "RemoteCommand": "none",
        "EscapeChar": "none",
    }
    if _asks():
        options["NumberOfPasswordPrompts"] = "1"
    if given.get("connecttimeout", "none") in ("none", "0"):
        options["ConnectTimeout"] = str(CONNECT_S)
    if given.get("serveraliveinterval", "0") == "0":
        options |= {"ServerAliveInterval": str(ALIVE_S), "ServerAliveCountMax": str(ALIVE_COUNT)}
    return [word for key, value in options.items() for word in ("-o", f"{key}={value}")]


def _configured(address: Address) -> dict[str, str]:
    """The user's configuration for this host, as ssh reads it; {} where it cannot say."""
    try:
        done = subprocess.run(
            [*_ssh(), "-G", *address.words],
            capture_output=True,
            stdin=subprocess.DEVNULL,
            timeout=CONNECT_S,
            check=False,
        )
    except (OSError, subprocess.SubprocessError):
        return {}
    rows = (line.partition(" ") for line in done.stdout.decode("utf-8", "replace").splitlines())
    return {key: value for key, _, value in rows}


def _asks() -> bool:
    """Whether the user has named a program that answers for a password."""
    return bool(os.environ.get("SSH_ASKPASS"))


def _environment() -> dict[str, str]:
    return {**os.environ, **({"SSH_ASKPASS_REQUIRE": "force"} if _asks() else {})}


def refusal(address: Address, status: int | None, said: str) -> InfcError | None:
    """What is to be said where Python never answered; None where the connection was cut.

    `status` is ssh's, `said` what it wrote to standard error.
    """
    notes = tuple(filter(None, [_tail(said)]))
    if status == OLD_PYTHON:
        old = f"Python on `{address}` is older than 3.8"
        return fail("E514", old, help="install a later python3 there")
    if status in NO_PROGRAM:
        none = f"there is no Python 3 on `{address}`"
        return fail("E514", none, notes=notes, help="install python3 there")
    values = {"address": address, "host": address.host, "words": shlex.join(address.words)}
    for meaning in _REFUSALS if status == OWN_FAILURE else ():
        if re.search(meaning.pattern, said):
            message, help = meaning.message.format(**values), meaning.help.format(**values)
            return fail("E512", message, notes=notes, help=help)
    if status not in (None, OWN_FAILURE):
        return fail(
            "E512",
            f"what was started on `{address}` left with status {status} before it answered",
            notes=notes,
            help=f"`ssh {values['words']} python3 -V` has to work",
        )
    return None


def _tail(said: str) -> str:
    """The last lines of what ssh said, but for the banner that it frames warnings with."""
    lines = [line.strip() for line in said.splitlines() if line.strip(" @\r\n")]
    return "\n".join(["ssh said:", *lines[-6:]]) if lines else ""


def far_program() -> bytes:
    """What runs there."""
    return Path(__file__).with_name("far_side.py").read_bytes()
