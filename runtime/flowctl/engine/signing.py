"""Keys of production: signatures on requests and replies, bearer tokens, event keys. Pure.

A key that is being replaced is accepted as the second one; ours is always the first.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs

import orjson

TOLERANCE_S = 300
HEADER = "x-inngest-signature"
_PREFIX = re.compile(r"signkey-\w+-")


class InvalidKeyError(ValueError):
    """A signing key that cannot be one; the message does not contain it."""


@dataclass(frozen=True, slots=True)
class Keys:
    """What a production engine was given. Without signing keys nothing is signed or checked (development)."""

    signing: Sequence[str] = ()
    event: Sequence[str] = ()

    def __post_init__(self) -> None:
        for key in self.signing:
            try:
                _hashed(key)
            except ValueError as err:
                raise InvalidKeyError("A signing key must be hexadecimal after its prefix.") from err

    @property
    def kind(self) -> str:
        """What the engine tells SDKs that it is."""
        return "cloud" if self.signs else "dev"

    @property
    def signs(self) -> bool:
        """Whether requests to apps are signed and their replies checked."""
        return bool(self.signing)

    def signature(self, body: Any, *, now: int) -> str:
        """The signature header of a request with this JSON body."""
        stamp = str(now // 1000)
        return f"t={stamp}&s={_mac(self.signing[0], _canonical(body), stamp)}"

    def has_signed(self, header: str, body: bytes, *, now: int) -> bool:
        """Whether a header is the signature of this body by one of the keys, and not old.

        SDKs sign a reply's bytes as they are, or its JSON in canonical form: both hold.
        """
        parsed = parse_qs(header)
        stamp, given = parsed.get("t", [""])[0], parsed.get("s", [""])[0]
        if not stamp.isdigit() or abs(now // 1000 - int(stamp)) > TOLERANCE_S:
            return False
        texts = (body, _canonical(_parsed(body)))
        macs = [_mac(key, text, stamp) for key in self.signing for text in texts]
        return any(hmac.compare_digest(mac.encode(), given.encode()) for mac in macs)

    def lets_in(self, authorization: str) -> bool:
        """Whether a call to the API bears a signing key or the hash of one."""
        token = _PREFIX.sub("", authorization.removeprefix("Bearer ").strip())
        known = [text for key in self.signing for text in (_PREFIX.sub("", key), _hashed(key))]
        return not self.signs or any(hmac.compare_digest(text.encode(), token.encode()) for text in known)

    def takes_event(self, key: str) -> bool:
        """Whether events may be sent with this key."""
        return not self.event or any(
            hmac.compare_digest(known.encode(), key.encode()) for known in self.event
        )


def outbound(keys: Keys, body: bytes, *, now: int) -> Mapping[str, str]:
    """Headers that prove to an app who calls."""
    return {HEADER: keys.signature(_parsed(body), now=now)} if keys.signs else {}


def _parsed(body: bytes) -> Any:
    try:
        return orjson.loads(body or b'""')
    except orjson.JSONDecodeError:
        return body.decode(errors="replace")


def _mac(key: str, text: bytes, stamp: str) -> str:
    return hmac.new(_PREFIX.sub("", key).encode(), text + stamp.encode(), hashlib.sha256).hexdigest()


def _hashed(key: str) -> str:
    return hashlib.sha256(bytes.fromhex(_PREFIX.sub("", key))).hexdigest()


def _canonical(body: Any) -> bytes:
    import jcs  # noqa: PLC0415 - production only

    text = jcs.canonicalize(body)
    return text if isinstance(text, bytes) else text.encode()
