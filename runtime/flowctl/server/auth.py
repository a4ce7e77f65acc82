"""Who may use the server: keys, tokens, or a function of yours.

An authenticator takes a request and answers who it is from, or None when it cannot tell. `gate` calls it.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import anyio.to_thread

from flowctl.errors import ConfigurationError, FlowctlError

if TYPE_CHECKING:
    from starlette.requests import HTTPConnection

KEYS_SECONDS = 10.0
Authenticator = Callable[["HTTPConnection"], Any | Awaitable[Any]]
"""Answers the user (any value, later `request.user`), or None; may be async; may raise ForbiddenError."""


class UnauthenticatedError(FlowctlError):
    """The request does not say who it is from, or not so that it can be believed."""

    code = "UNAUTHENTICATED"
    http_status: ClassVar[int] = 401


class ForbiddenError(FlowctlError):
    """The request is from somebody who may not do this: raise it in an authenticator."""

    code = "FORBIDDEN"
    http_status: ClassVar[int] = 403


class KeysUnreachableError(FlowctlError):
    """The provider of the keys that tokens are signed with does not answer."""

    code = "KEYS_UNREACHABLE"
    http_status: ClassVar[int] = 503


class ApiKeys:
    """Keys of your own: as bearer token, in `x-api-key`, or as the password a browser asks for.

    The user is the key's name: `ApiKeys({"ci": os.environ["CI_KEY"]})`, or `key-1`, `key-2`… of a list.
    """

    challenge = 'Basic realm="flowctl", charset="UTF-8"'

    def __init__(self, keys: dict[str, str] | Sequence[str]) -> None:
        named = keys if isinstance(keys, dict) else {f"key-{n}": key for n, key in enumerate(keys, 1)}
        if not named or not all(named.values()):
            raise ConfigurationError(
                "ApiKeys needs at least one key, and an empty one would let everyone in."
            )
        self._names = {_digest(key): name for name, key in named.items()}

    def __call__(self, request: HTTPConnection) -> str | None:
        """The name of the key that came with a request."""
        given = request.headers.get("x-api-key") or bearer_token(request) or _password(request)
        if not given:
            return None
        sent = _digest(given)
        return next((name for known, name in self._names.items() if hmac.compare_digest(known, sent)), None)


class JwtAuth:
    """Signed tokens, verified with PyJWT (`pip install 'flowctl-workflows[auth]'`). The user is the claims.

    Give `key` (a secret or a public key in PEM), or `jwks_url` where a provider publishes its keys. A token
    has to be signed by one of `algorithms`, be in its time, and be for `audience` and by `issuer` if given.
    Published keys are kept for some minutes; one that is new is looked for when a token names it.
    """

    challenge = "Bearer"

    def __init__(
        self,
        *,
        key: str | None = None,
        jwks_url: str | None = None,
        algorithms: Sequence[str] = ("RS256",),
        audience: str | Sequence[str] | None = None,
        issuer: str | None = None,
        leeway: float = 30,
    ) -> None:
        """`leeway` is in seconds: how far clocks may differ. Raises ConfigurationError."""
        if (key is None) == (jwks_url is None):
            raise ConfigurationError("JwtAuth needs a key= or a jwks_url=, and not both.")
        self._jwt = _pyjwt()
        self._key, self._algorithms = key, list(algorithms)
        self._jwks = self._jwt.PyJWKClient(jwks_url, timeout=KEYS_SECONDS) if jwks_url else None
        self._audience, self._issuer, self._leeway = audience, issuer, leeway

    async def __call__(self, request: HTTPConnection) -> dict[str, Any] | None:
        """The claims of the token that came with a request.

        Raises UnauthenticatedError, and KeysUnreachableError when the provider of the keys does not answer.
        """
        token = bearer_token(request)
        return await anyio.to_thread.run_sync(self._verified, token) if token else None

    def _verified(self, token: str) -> dict[str, Any]:
        try:
            key = self._jwks.get_signing_key_from_jwt(token) if self._jwks else self._key
            return self._jwt.decode(
                token,
                key,
                algorithms=self._algorithms,
                audience=self._audience,
                issuer=self._issuer,
                leeway=self._leeway,
                options={"require": ["exp"]},
            )
        except self._jwt.PyJWKClientConnectionError as err:
            raise KeysUnreachableError("The keys that tokens are signed with cannot be fetched now.") from err
        except self._jwt.PyJWTError as err:
            raise UnauthenticatedError(f"The token is not valid: {err}.") from err


def bearer_token(request: HTTPConnection) -> str | None:
    """The token of an `Authorization: Bearer` header."""
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    return token.strip() or None if scheme.lower() == "bearer" else None


def _password(request: HTTPConnection) -> str | None:
    scheme, _, encoded = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "basic":
        return None
    try:
        return base64.b64decode(encoded, validate=True).decode().partition(":")[2]
    except (binascii.Error, UnicodeDecodeError):
        return None


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode()).digest()


def _pyjwt() -> Any:
    try:
        import jwt  # noqa: PLC0415 - an extra
    except ImportError as err:
        raise ConfigurationError("JwtAuth needs PyJWT: pip install 'flowctl-workflows[auth]'.") from err
    return jwt
