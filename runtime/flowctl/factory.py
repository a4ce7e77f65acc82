"""The authoring functions bound to one Inngest client: what `init` gives."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from flowctl.step import clone_step, create_step
from flowctl.workflow import In, Out, Workflow, clone_workflow, create_workflow

if TYPE_CHECKING:
    import inngest


@dataclass(frozen=True, slots=True)
class Factory:
    """What `init(client)` returns: the authoring functions, bound to an Inngest client."""

    client: inngest.Inngest

    def create_workflow(
        self,
        *,
        id: str,
        input_schema: type[In] | Any = None,
        output_schema: type[Out] | Any = None,
        **options: Any,
    ) -> Workflow[In, Out]:
        """As `flowctl.create_workflow`; the workflow runs on Inngest."""
        return create_workflow(
            id=id, input_schema=input_schema, output_schema=output_schema, client=self.client, **options
        )

    create_step = staticmethod(create_step)
    clone_step = staticmethod(clone_step)
    clone_workflow = staticmethod(clone_workflow)


def init(client: inngest.Inngest) -> Factory:
    """The authoring functions for workflows that run on this Inngest client.

    flow = init(inngest.Inngest(app_id="my-app"))
    workflow = flow.create_workflow(id="w").then(increment).commit()
    """
    return Factory(client)
