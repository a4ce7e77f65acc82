"""JSON Web Tokens (HS256) that this engine signs and checks itself. Pure."""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Mapping
from typing import Any

import orjson

_HEAD = base64.urlsafe_b64encode(b'{"alg":"HS256","typ":"JWT"}').rstrip(b"=").decode()


def signed(claims: Mapping[str, Any], key: bytes) -> str:
    """A token with these claims."""
    text = f"{_HEAD}.{_encoded(orjson.dumps(claims))}"
    return f"{text}.{_signature(text, key)}"


def claims_of(token: str, key: bytes) -> dict[str, Any] | None:
    """The claims of a token that was signed with this key, None for any other text."""
    text, _, signature = token.rpartition(".")
    if not hmac.compare_digest(_signature(text, key).encode(), signature.encode()):
        return None
    return orjson.loads(_decoded(text.partition(".")[2]))


def _signature(text: str, key: bytes) -> str:
    return _encoded(hmac.new(key, text.encode(), hashlib.sha256).digest())


def _encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _decoded(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
