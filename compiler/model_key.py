"""The key of an encrypted artifact: read here, handed to a cipher, written nowhere.

It is 32 hexadecimal digits: 16 bytes, the one length that MindSpore Lite's converter takes. They
are in the file that the user names, in the environment variable INFC_MODEL_KEY, or in the file
that INFC_MODEL_KEY_FILE names, which is the order in which they are looked for. Whoever can list
processes reads an argument, so no argument holds the key.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from infc.diagnostics import InfcError, fail

VARIABLE = "INFC_MODEL_KEY"
FILE_VARIABLE = "INFC_MODEL_KEY_FILE"
MAX_FILE_BYTES = 4096
HELP = (
    "the key is 32 hexadecimal digits, in the file that `-X key-file=PATH` or the environment's "
    f"{FILE_VARIABLE} names, or in {VARIABLE}"
)
_KEY = re.compile(r"[0-9a-fA-F]{32}")


def read_key(file: str = "") -> bytes:
    """The key, 16 bytes; `file` is where the user says that it is, "" where the user does not.

    Raises:
        InfcError: E706 where there is none, or something else than a key. The message does not
            quote what was found.
    """
    if file:
        return _parse(_text_of(file), f"the key file `{file}`")
    if VARIABLE in os.environ:
        return _parse(os.environ[VARIABLE], f"the environment variable {VARIABLE}")
    if os.environ.get(FILE_VARIABLE):
        named = os.environ[FILE_VARIABLE]
        return _parse(_text_of(named), f"the file that {FILE_VARIABLE} names, `{named}`,")
    raise fail("E706", "there is no key for the encrypted model", help=HELP)


def wrong_key(what: str) -> InfcError:
    """E706 for a key that does not open `what`."""
    message = f"{what} cannot be decrypted: the key is another one, or the file is damaged"
    return fail("E706", message, help=HELP)


def _text_of(file: str) -> str:
    try:
        with Path(file).expanduser().open("rb") as stream:
            return stream.read(MAX_FILE_BYTES).decode("ascii", "replace")
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or error
        raise fail("E706", f"the key file `{file}` cannot be read: {why}", help=HELP) from error


def _parse(text: str, where: str) -> bytes:
    if not _KEY.fullmatch(text.strip()):
        raise fail("E706", f"{where} does not hold a key", help=HELP)
    return bytes.fromhex(text.strip())
