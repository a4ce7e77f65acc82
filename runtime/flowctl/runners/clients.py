"""Which Inngest client an app is to use when it was given none: the one that its parts were made with.

Called by `app`.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

import inngest

from flowctl.errors import DefinitionError

if TYPE_CHECKING:
    from flowctl.workflow import Workflow


def adopted_client(
    workflows: Iterable[Workflow[Any, Any]], functions: Iterable[inngest.Function[Any]]
) -> inngest.Inngest | None:
    """The one client that workflows are bound to and functions were made by, or None.

    Raises DefinitionError when there are two.
    """
    functions = tuple(functions)
    bound = {id(w.client): w.client for w in workflows if w.client is not None}
    found = bound | {id(c): c for f in functions if (c := _maker(f, bound.values())) is not None}
    client = next(iter(found.values()), None)
    others = [f.local_id for f in functions if client is not None and not _is_maker(client, f)]
    if len(found) > 1 or others:
        raise DefinitionError(
            "The app's workflows and functions belong to different Inngest clients: "
            "use one or pass inngest= to App."
        )
    return client


def _maker(function: inngest.Function[Any], known: Iterable[inngest.Inngest]) -> inngest.Inngest | None:
    """The client that made a function: a known one, or one that can be seen where the function was written.

    inngest-py keeps no link from a function to its client, only the client's app id.
    """
    fitting = (client for client in (*known, *_clients_near(function)) if _is_maker(client, function))
    return next(fitting, None)


def _is_maker(client: inngest.Inngest, function: inngest.Function[Any]) -> bool:
    return function.id == f"{client.app_id}-{function.local_id}"


def _clients_near(function: inngest.Function[Any]) -> Iterator[inngest.Inngest]:
    handler: Any = inspect.unwrap(function._handler)  # noqa: SLF001 - the function shows it nowhere else  # pyright: ignore[reportPrivateUsage]
    named = dict(getattr(handler, "__globals__", {}))
    return (value for value in named.values() if isinstance(value, inngest.Inngest))
