"""Apps come, change and go: registrations, syncs out of band and in band, removal."""

from __future__ import annotations

import contextlib
import socket

import fastapi
import inngest
import inngest.fast_api
import pytest
from engine_world import served
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route

from flowctl.engine.apps import Apps
from flowctl.engine.ledger import Ledger
from flowctl.engine.signing import Keys
from flowctl.engine.store import Store
from flowctl.engine.syncs import SyncError, Syncs
from flowctl.engine.timing import now_ms
from flowctl.engine.transport import Transport

KEY, OTHER = "signkey-prod-" + "ab" * 16, "signkey-prod-" + "cd" * 16


def app(name: str, *functions: str, port: int = 1, **more) -> dict:
    """A registration as SDKs send it."""
    url = f"http://127.0.0.1:{port}/api/inngest"
    step = {"id": "step", "name": "step", "runtime": {"type": "http"}}
    return {
        "appName": name,
        "url": url,
        "sdk": "inngest-py:v0.5.19",
        "functions": [
            {
                "id": f"{name}-{id}",
                "triggers": [{"event": id}],
                "steps": {"step": step | {"runtime": {"url": f"{url}?fnId={name}-{id}&stepId=step"}}},
            }
            | more
            for id in functions
        ],
    }


async def register(world, registration, **headers):
    return await world.http.post(f"{world.engine.url}/fn/register", json=registration, headers=headers)


async def test_a_function_that_a_sync_no_longer_has_is_gone_with_its_runs(world):
    await register(world, app("a", "one", "two"))
    ids = [await world.send(name) for name in ("one", "two")]
    await register(world, app("a", "two"))
    statuses = [(await world.runs(id))[0]["status"] for id in ids]
    assert statuses[0] == "Cancelled"
    assert statuses[1] != "Cancelled"
    assert await world.runs(await world.send("one")) == []


async def test_apps_stand_side_by_side_until_one_is_removed(world):
    for name, port in (("a", 1), ("b", 2)):
        await register(world, app(name, "shared", port=port))
    assert len(await world.runs(await world.send("shared"))) == 2
    url = f"{world.engine.url}/fn/remove?url=http://127.0.0.1:2/api/inngest"
    assert [(await world.http.delete(url)).status_code for _ in range(2)] == [200, 404]
    assert [known["name"] for known in await world.get("/v1/apps")] == ["a"]
    assert len(await world.runs(await world.send("shared"))) == 1


async def test_a_schedule_that_was_taken_away_no_longer_fires(world):
    def timers():
        rows = world.engine._store.db.execute("SELECT target FROM jobs WHERE kind = 'cron'")
        return sorted(row[0] for row in rows)

    await register(world, app("a", "f", triggers=[{"cron": "0 1 * * *"}, {"cron": "0 2 * * *"}]))
    assert timers() == ["0 1 * * *", "0 2 * * *"]
    await register(world, app("a", "f", triggers=[{"cron": "0 2 * * *"}]))
    assert timers() == ["0 2 * * *"]


async def test_two_apps_cannot_have_one_function(world):
    await register(world, app("a", "b-c"))
    answer = await register(world, app("a-b", "c"))
    assert answer.status_code == 400
    assert "'a-b-c' belongs to the app 'a'" in answer.json()["error"]


async def test_an_sdk_in_production_mode_is_told_that_this_is_a_dev_server(world):
    answer = await register(world, app("a", "f"), **{"x-inngest-expected-server-kind": "cloud"})
    assert answer.status_code == 400
    assert "this server's is dev" in answer.json()["error"]


async def test_an_event_that_names_a_function_runs_it(world):
    @world.function("f", event="t/never")
    async def f(ctx: inngest.Context) -> object:
        return ctx.event.data["x"]

    await world.start()
    id = await world.send("inngest/function.invoked", {"x": 5, "_inngest": {"fn_id": "t-f"}})
    assert (await world.ended(id))["output"] == 5


@pytest.fixture
async def production_app():
    """Serve an app that has a signing key; answers where."""
    async with contextlib.AsyncExitStack() as stack:

        async def serve(key: str) -> str:
            listener = stack.enter_context(contextlib.closing(socket.socket()))
            listener.bind(("127.0.0.1", 0))
            client = inngest.Inngest(app_id="p", is_production=True, signing_key=key, event_key="e")
            stack.push_async_callback(client._http_client._http_client.aclose)

            @client.create_function(fn_id="f", trigger=inngest.TriggerEvent(event="p/f"))
            async def f(ctx: inngest.Context) -> None: ...

            web = fastapi.FastAPI()
            inngest.fast_api.serve(web, client, [f])
            await stack.enter_async_context(served(web, listener))
            return f"http://127.0.0.1:{listener.getsockname()[1]}/api/inngest"

        yield serve


@pytest.fixture
async def syncs():
    transport, store = Transport(), Store(None)
    yield Syncs(Apps(Ledger(store, lambda: None)), Keys((KEY,)), transport)
    await transport.close()
    store.close()


async def test_an_app_with_the_engines_key_is_synced_in_band(production_app, syncs):
    url = await production_app(KEY)
    await syncs.sync(url)
    (function,) = syncs.apps.functions_of("p")
    assert function.url == f"{url}?fnId=p-f&stepId=step"
    assert syncs.apps.to_json()[0]["sdk_language"] == "py"


async def test_an_app_with_another_key_is_not_synced(production_app, syncs):
    with pytest.raises(SyncError, match="401"):
        await syncs.sync(await production_app(OTHER))
    assert syncs.apps.functions_of("p") == []


@pytest.mark.parametrize("signed_with", [OTHER, None])
async def test_an_in_band_reply_that_is_not_signed_with_the_engines_key_registers_nothing(syncs, signed_with):
    async def reply(_):
        body = {"app_id": "evil", "functions": [], "sdk_language": "py", "sdk_version": "1"}
        headers = {"x-inngest-sync-kind": "in_band"}
        if signed_with:
            headers["x-inngest-signature"] = Keys((signed_with,)).signature(body, now=now_ms())
        return JSONResponse(body, headers=headers)

    with contextlib.closing(socket.socket()) as listener:
        listener.bind(("127.0.0.1", 0))
        async with served(Starlette(routes=[Route("/", reply, methods=["PUT"])]), listener):
            with pytest.raises(SyncError, match="not signed"):
                await syncs.sync(f"http://127.0.0.1:{listener.getsockname()[1]}/")
    assert syncs.apps.by_name == {}
