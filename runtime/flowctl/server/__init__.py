"""The HTTP side of an app: REST API, `/api/inngest`, pages. Starlette is imported on demand."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import inngest
    from starlette.types import ASGIApp

    from flowctl.app import App


def serve(app: App, functions: Sequence[inngest.Function[Any]] = ()) -> ASGIApp:
    """The ASGI endpoint for an app's workflows and functions, and these functions beside them.

    Mount it at `/api/inngest` of a Starlette or FastAPI application. Raises DefinitionError for two
    functions with one id.
    """
    from flowctl.server.inngest import Endpoint  # noqa: PLC0415 - see the module's first line

    return Endpoint(app, list(functions))
