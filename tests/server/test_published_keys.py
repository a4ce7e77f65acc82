"""Tokens verified by keys that a provider publishes: fetched, kept, replaced, and sometimes out of reach."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, field
from typing import Any

import anyio
import httpx
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from jwt.algorithms import RSAAlgorithm
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from flowctl import ServerConfig
from flowctl.server import auth
from flowctl.server.auth import JwtAuth
from tests.server.conftest import make_app


@dataclass
class Provider:
    """Signs tokens, and publishes the keys that it signs with now."""

    keys: dict[str, rsa.RSAPrivateKey] = field(default_factory=dict)
    fetched: int = 0
    is_slow: bool = False

    def rotate(self, id: str) -> None:
        self.keys = {id: rsa.generate_private_key(65537, 2048)}

    def token(self, id: str, key: rsa.RSAPrivateKey | None = None) -> dict[str, str]:
        claims = {"sub": "ada", "aud": "flows", "exp": time.time() + 600}
        signed = jwt.encode(claims, key or self.keys[id], "RS256", headers={"kid": id})
        return {"authorization": f"Bearer {signed}"}

    async def publish(self, _: Request) -> Response:
        self.fetched += 1
        if self.is_slow:
            await anyio.sleep(5)
        shown = [
            {**json.loads(RSAAlgorithm.to_jwk(key.public_key())), "kid": id, "use": "sig"}
            for id, key in self.keys.items()
        ]
        return JSONResponse({"keys": shown})


@pytest.fixture
async def provider(serve_app) -> Any:
    provider = Provider()
    provider.rotate("one")
    provider.url = await serve_app(Starlette(routes=[Route("/jwks.json", provider.publish)]))
    return provider


@pytest.fixture
async def guarded(serve_app, provider):
    """A client of an app that trusts the provider."""
    trusts = JwtAuth(jwks_url=f"{provider.url}/jwks.json", audience="flows")
    url = await serve_app(make_app(server=ServerConfig(auth=trusts)))
    async with httpx.AsyncClient(base_url=url, timeout=30) as client:
        yield client, trusts


async def test_keys_are_fetched_once_and_kept(guarded, provider) -> None:
    http, _ = guarded
    answers = [await http.get("/api/workflows", headers=provider.token("one")) for _ in range(5)]
    assert [answer.status_code for answer in answers] == [200] * 5
    assert provider.fetched == 1


async def test_a_key_that_replaces_another_is_found(guarded, provider) -> None:
    http, trusts = guarded
    old = provider.token("one")
    assert (await http.get("/api/workflows", headers=old)).status_code == 200
    provider.rotate("two")
    trusts._jwks.cooldown_duration = 0  # as after the library's cooldown
    assert (await http.get("/api/workflows", headers=provider.token("two"))).status_code == 200
    assert (await http.get("/api/workflows", headers=old)).status_code == 401


async def test_made_up_keys_are_refused_and_do_not_make_the_provider_busy(guarded, provider) -> None:
    http, _ = guarded
    forged = rsa.generate_private_key(65537, 2048)
    tokens = [provider.token(id, forged) for id in ("one", "x", "y", "z")]
    tokens.append({"authorization": f"Bearer {jwt.encode({'sub': 'a'}, None, 'none')}"})
    tokens.append({"authorization": "Bearer no.token.atall"})
    answers = [await http.get("/api/workflows", headers=token) for token in tokens]
    assert [answer.status_code for answer in answers] == [401] * len(tokens)
    assert provider.fetched <= 2


async def test_a_provider_that_does_not_answer_is_a_503_and_health_is_as_ever(
    serve_app, provider, monkeypatch
) -> None:
    monkeypatch.setattr(auth, "KEYS_SECONDS", 0.1)
    provider.is_slow = True
    trusts = JwtAuth(jwks_url=f"{provider.url}/jwks.json", audience="flows")
    url = await serve_app(make_app(server=ServerConfig(auth=trusts)))
    async with httpx.AsyncClient(base_url=url, timeout=30) as http:
        answer = await http.get("/api/workflows", headers=provider.token("one"))
        assert (answer.status_code, answer.json()["code"]) == (503, "KEYS_UNREACHABLE")
        assert (await http.get("/health")).status_code == 200
