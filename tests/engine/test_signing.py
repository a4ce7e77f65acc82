from __future__ import annotations

import socket

import fastapi
import httpx
import inngest
import inngest.fast_api
import orjson
import pytest
from engine_world import served, until
from hypothesis import given
from hypothesis import strategies as st

from flowctl.engine import Engine, EngineConfig
from flowctl.engine.signing import InvalidKeyError, Keys

OLD, NEW = "signkey-prod-" + "ab" * 16, "signkey-prod-" + "cd" * 16
json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**50), 2**50) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(json_values, st.integers(0, 2**40))
def test_a_signature_holds_for_its_body_and_five_minutes(body, now):
    header = Keys((NEW,)).signature(body, now=now)
    text = orjson.dumps(body, option=orjson.OPT_INDENT_2)
    assert Keys((NEW,)).has_signed(header, text, now=now + 299_000)
    assert not Keys((NEW,)).has_signed(header, b"[" + text + b"]", now=now)
    assert not Keys((NEW,)).has_signed(header, text, now=now + 302_000)


def test_the_key_that_is_replaced_is_accepted_beside_the_new_one():
    header = Keys((OLD,)).signature({"a": 1}, now=0)
    assert Keys((NEW, OLD)).has_signed(header, b'{"a": 1}', now=0)
    assert not Keys((NEW,)).has_signed(header, b'{"a": 1}', now=0)


def test_a_malformed_key_is_refused_without_being_shown():
    with pytest.raises(InvalidKeyError) as caught:
        Keys(("signkey-prod-secret",))
    assert "secret" not in str(caught.value)


ROTATION = {
    "before": ((OLD,), OLD, None),
    "the engine accepts the new key too": ((OLD, NEW), OLD, None),
    "the app has moved on": ((OLD, NEW), NEW, OLD),
    "the app has moved on first": ((OLD,), NEW, OLD),
    "the engine signs with the new key": ((NEW,), NEW, OLD),
    "after": ((NEW,), NEW, None),
}


@pytest.mark.parametrize("phase", ROTATION)
async def test_a_production_app_runs_on_an_engine_at_each_moment_of_a_rotation_of_keys(phase, monkeypatch):
    engine_keys, app_key, fallback_key = ROTATION[phase]
    if fallback_key is not None:
        monkeypatch.setenv("INNGEST_SIGNING_KEY_FALLBACK", fallback_key)
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    config = EngineConfig(port=0, event_keys=("evt",), signing_keys=engine_keys)
    async with Engine(config) as engine, httpx.AsyncClient() as http:
        client = inngest.Inngest(
            app_id="p",
            is_production=True,
            signing_key=app_key,
            event_key="evt",
            api_base_url=engine.url,
            event_api_base_url=engine.url,
        )
        done = []

        @client.create_function(fn_id="f", trigger=inngest.TriggerEvent(event="p/f"))
        async def f(ctx: inngest.Context) -> None:
            done.append(ctx.run_id)

        app = fastapi.FastAPI()
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        inngest.fast_api.serve(app, client, [f], serve_origin=url)
        async with served(app, listener):
            synced = await http.put(f"{url}/api/inngest")
            assert synced.status_code == 200, synced.text
            await client.send(inngest.Event(name="p/f"))

            async def ran():
                return done

            await until(ran)
        await client._http_client._http_client.aclose()
    listener.close()


async def test_without_a_key_nothing_but_health_is_answered():
    config = EngineConfig(port=0, event_keys=("evt",), signing_keys=(NEW,))
    async with Engine(config) as engine, httpx.AsyncClient(base_url=engine.url) as http:
        paths = ("/dev", "/v1/events", "/health")
        assert [(await http.get(path)).status_code for path in paths] == [401, 401, 200]
        assert (await http.post("/e/wrong", json={"name": "x"})).status_code == 401
        assert (await http.post("/fn/register", json={})).status_code == 401
