"""A run as storages give it: who and when, beside its snapshot."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from flowctl.snapshot import RunError, RunStatus, Snapshot, StepResult


@dataclass(frozen=True, slots=True)
class StoredRun:
    """A run as storage lists it: identity, times and the snapshot."""

    workflow_id: str
    run_id: str
    resource_id: str | None
    created_at: str
    updated_at: str
    snapshot: Snapshot
    leg: int = 0

    @property
    def status(self) -> RunStatus:
        """The run's status."""
        return self.snapshot.status

    @property
    def steps(self) -> dict[str, StepResult]:
        """The records of the workflow's steps; nested ones too where `get_workflow_run_by_id` names them."""
        return self.snapshot.steps

    @property
    def input(self) -> Any:
        """The workflow's input, JSON data."""
        return self.snapshot.input

    @property
    def result(self) -> Any:
        """The workflow's result, JSON data, after a success."""
        return self.snapshot.result

    @property
    def error(self) -> RunError | None:
        """Why the run failed, without the stack."""
        return self.snapshot.error

    @property
    def state(self) -> dict[str, Any]:
        """The run's state."""
        return self.snapshot.state

    def to_json(self) -> dict[str, Any]:
        """As the list route shows it."""
        return {
            "workflowName": self.workflow_id,
            "runId": self.run_id,
            "snapshot": self.snapshot.to_json(),
            "resourceId": self.resource_id,
            "createdAt": self.created_at,
            "updatedAt": self.updated_at,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> StoredRun:
        """The run of its JSON form."""
        return cls(
            workflow_id=data["workflowName"],
            run_id=data["runId"],
            resource_id=data.get("resourceId"),
            created_at=data["createdAt"],
            updated_at=data["updatedAt"],
            snapshot=Snapshot.from_json(data["snapshot"]),
        )


@dataclass(frozen=True, slots=True)
class StoredRuns:
    """A page of runs, and how many there are in all."""

    runs: list[StoredRun]
    total: int
