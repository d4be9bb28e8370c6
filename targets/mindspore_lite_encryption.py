"""MindSpore Lite's encrypted model files, written and read.

    file   block, block, ...                        64 MiB of the plain file in each, the last less
    block  d85e3a7f | tag[16] | u32 n + 24 | u32 16 | iv[16] | u32 n | cipher[n]

with little-endian numbers, AES-128-GCM, the nonce in the first 12 bytes of iv, and no additional
data. The vendor draws iv at random. Here it is a MAC of what it encrypts,

    iv = HMAC-SHA256(HMAC-SHA256(key, LABEL), block's number | plain)[:16]

so that the same model and key give the same file. GCM breaks where two different plain texts are
encrypted with one key and one nonce: two blocks have one nonce only where 96 bits of a
pseudo-random function agree, which is as unlikely as for nonces drawn at random. All that a reader
of two files learns is whether they are the same model; that is the idea of SIV (RFC 5297, RFC
8452). The MAC's key is derived, so that no key serves two algorithms.

Source: mindspore/lite/src/common/crypto.cc (MindSpore 2.0); NIST SP 800-38D.
"""

from __future__ import annotations

import hashlib
import hmac
import struct
from typing import TYPE_CHECKING

from infc.diagnostics import fail
from infc.model_key import wrong_key

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

MAGIC = bytes.fromhex("d85e3a7f")
BLOCK_BYTES = 64 << 20
"""Of the plain file in one block."""
IV_BYTES, NONCE_BYTES, TAG_BYTES = 16, 12, 16
LABEL = b"infc: the nonce of an encrypted MindSpore Lite model"
HEAD = struct.Struct("<4s16sII16sI")


def encrypt(plain: bytes, key: bytes) -> bytes:
    """The encrypted file; `key` is 16 bytes.

    Raises:
        InfcError: E501 where the package `cryptography` is missing.
    """
    cipher = _cipher(key)
    parts = [plain[at : at + BLOCK_BYTES] for at in range(0, len(plain), BLOCK_BYTES)]
    ivs = [_iv(number, part, key) for number, part in enumerate(parts)]
    return b"".join(block(p, cipher, iv) for p, iv in zip(parts, ivs, strict=True))


def block(plain: bytes, cipher: AESGCM, iv: bytes) -> bytes:
    """One block; `iv` is 16 bytes, and must never serve two different plain texts."""
    sealed = cipher.encrypt(iv[:NONCE_BYTES], plain, None)
    text, tag = sealed[:-TAG_BYTES], sealed[-TAG_BYTES:]
    rest = 4 + IV_BYTES + 4 + len(text)
    return HEAD.pack(MAGIC, tag, rest, IV_BYTES, iv, len(text)) + text


def decrypt(sealed: bytes, key: bytes) -> bytes:
    """The plain file.

    Raises:
        InfcError: E706 where the key is another one or the file is not whole, E501.
    """
    cipher, parts, at = _cipher(key), [], 0
    from cryptography.exceptions import InvalidTag

    while at < len(sealed):
        try:
            magic, tag, rest, iv_bytes, iv, count = HEAD.unpack_from(sealed, at)
        except struct.error as error:
            raise wrong_key("the model") from error
        at += HEAD.size
        if magic != MAGIC or iv_bytes != IV_BYTES or rest != 4 + IV_BYTES + 4 + count:
            raise wrong_key("the model")
        try:
            parts.append(cipher.decrypt(iv[:NONCE_BYTES], sealed[at : at + count] + tag, None))
        except InvalidTag as error:
            raise wrong_key("the model") from error
        at += count
    return b"".join(parts)


def _iv(number: int, plain: bytes, key: bytes) -> bytes:
    own = hmac.digest(key, LABEL, hashlib.sha256)
    return hmac.digest(own, struct.pack("<Q", number) + plain, hashlib.sha256)[:IV_BYTES]


def _cipher(key: bytes) -> AESGCM:
    try:
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM
    except ModuleNotFoundError as error:
        raise fail(
            "E501",
            "encryption needs the Python module `cryptography`",
            help="pip install cryptography",
        ) from error
    return AESGCM(key)
