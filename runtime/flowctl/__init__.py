"""flowctl: durable workflows in typed Python.

Each public name is imported when it is first used, from where it is defined: what needs the errors only, as
the command line does, starts without the rest. `__init__.pyi` holds the same names for type checkers.
"""

from __future__ import annotations

import importlib
import sys
import types

_NAMES = {
    "flowctl.app": "App",
    "flowctl.context": "StepContext",
    "flowctl.deployers": "DockerDeployer VercelDeployer",
    "flowctl.errors": (
        "AlreadyClaimedError AmbiguousStepError ConfigurationError DefinitionError EngineError "
        "FlowctlError NonRetriableError NotActiveError NotFoundError NotSuspendedError "
        "RunNotFoundError RunStateError StateTooLargeError StepNotFoundError StillRunningError "
        "StorageError TimeTravelError ValidationError WorkflowNotFoundError"
    ),
    "flowctl.events": "WorkflowEvent",
    "flowctl.mapping": "map_variable",
    "flowctl.request_context": "RequestContext",
    "flowctl.result": "RunResult",
    "flowctl.run": "Run",
    "flowctl.server": "serve",
    "flowctl.server.config": "ServerConfig",
    "flowctl.snapshot": "StepResult",
    "flowctl.step": "Step clone_step create_step step",
    "flowctl.storage": "MemoryStorage PostgresStorage SQLiteStorage",
    "flowctl.factory": "clone_workflow create_workflow init",
    "flowctl.workflow": "Workflow",
}
_HOMES = {name: module for module, names in _NAMES.items() for name in names.split()}
__all__ = list(_HOMES)  # pyright: ignore[reportUnsupportedDunderAll] - the stub has the list


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(
            f"module 'flowctl' has no attribute {name!r}", name=name, obj=sys.modules[__name__]
        )
    value = globals()[name] = getattr(importlib.import_module(_HOMES[name]), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})


class _Package(types.ModuleType):
    """This package: `flowctl.step` is the function, although the file of its name is imported as well."""

    @property
    def step(self) -> object:
        return importlib.import_module("flowctl.step").step

    @step.setter
    def step(self, submodule: object) -> None:
        """The import system binds the file here; the name stays the function's."""


sys.modules[__name__].__class__ = _Package
