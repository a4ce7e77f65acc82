"""The client for code without an event loop: the async one's methods, run in a thread of their own."""

from __future__ import annotations

import functools
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Mapping
from contextlib import AbstractContextManager
from typing import Any, Concatenate, ParamSpec, Self, TypeVar

import httpx
from anyio.from_thread import BlockingPortal, start_blocking_portal

from flowctl.client.client import DEFAULT_URL, Client

P = ParamSpec("P")
T = TypeVar("T")


def _blocking(
    method: Callable[Concatenate[Client, P], Coroutine[Any, Any, T]],
) -> Callable[Concatenate[SyncClient, P], T]:
    @functools.wraps(method)
    def call(self: SyncClient, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return self.portal.call(functools.partial(method, self.client, *args, **kwargs))

    return call


def _iterating(
    method: Callable[Concatenate[Client, P], AsyncIterator[T]],
) -> Callable[Concatenate[SyncClient, P], Iterator[T]]:
    @functools.wraps(method)
    def iterate(self: SyncClient, /, *args: P.args, **kwargs: P.kwargs) -> Iterator[T]:
        events = method(self.client, *args, **kwargs)
        while True:
            try:
                yield self.portal.call(events.__anext__)
            except StopAsyncIteration:
                return

    return iterate


class SyncClient:
    """`Client` with methods that block; streams are plain iterators.

    Use it in a `with` block: between its ends a thread runs the calls.
    """

    def __init__(
        self,
        url: str = DEFAULT_URL,
        *,
        api_key: str | None = None,
        headers: Mapping[str, str] | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self.client = Client(url, api_key=api_key, headers=headers, transport=transport)
        self._thread: AbstractContextManager[BlockingPortal] | None = None
        self._portal: BlockingPortal | None = None

    def __enter__(self) -> Self:
        self._thread = start_blocking_portal()
        self._portal = self._thread.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self.portal.call(self.client.close)
        if self._thread is not None:
            self._thread.__exit__(None, None, None)
        self._thread = self._portal = None

    @property
    def portal(self) -> BlockingPortal:
        """The way into the thread that runs the calls."""
        if self._portal is None:
            raise RuntimeError("The client is used in a block: `with SyncClient(...) as client:`.")
        return self._portal

    list_workflows = _blocking(Client.list_workflows)
    get_workflow = _blocking(Client.get_workflow)
    list_functions = _blocking(Client.list_functions)
    list_runs = _blocking(Client.list_runs)
    get_run = _blocking(Client.get_run)
    delete_run = _blocking(Client.delete_run)
    create_run = _blocking(Client.create_run)
    start = _blocking(Client.start)
    start_async = _blocking(Client.start_async)
    stream = _iterating(Client.stream)
    observe = _iterating(Client.observe)
    resume = _blocking(Client.resume)
    resume_async = _blocking(Client.resume_async)
    resume_stream = _iterating(Client.resume_stream)
    restart = _blocking(Client.restart)
    restart_async = _blocking(Client.restart_async)
    time_travel = _blocking(Client.time_travel)
    time_travel_stream = _iterating(Client.time_travel_stream)
    cancel = _blocking(Client.cancel)
    send = _blocking(Client.send)
    invoke = _blocking(Client.invoke)
    call = _blocking(Client.call)
