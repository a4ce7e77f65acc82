from flowctl.app import App
from flowctl.context import StepContext
from flowctl.deployers import DockerDeployer, VercelDeployer
from flowctl.errors import (
    AlreadyClaimedError,
    AmbiguousStepError,
    ConfigurationError,
    DefinitionError,
    EngineError,
    FlowctlError,
    NonRetriableError,
    NotActiveError,
    NotFoundError,
    NotSuspendedError,
    RunNotFoundError,
    RunStateError,
    StateTooLargeError,
    StepNotFoundError,
    StillRunningError,
    StorageError,
    TimeTravelError,
    ValidationError,
    WorkflowNotFoundError,
)
from flowctl.events import WorkflowEvent
from flowctl.factory import clone_workflow, create_workflow, init
from flowctl.mapping import map_variable
from flowctl.request_context import RequestContext
from flowctl.result import RunResult
from flowctl.run import Run
from flowctl.server import serve
from flowctl.server.config import ServerConfig
from flowctl.snapshot import StepResult
from flowctl.step import Step, clone_step, create_step, step
from flowctl.storage import MemoryStorage, PostgresStorage, SQLiteStorage
from flowctl.workflow import Workflow

__all__ = [
    "AlreadyClaimedError",
    "AmbiguousStepError",
    "App",
    "ConfigurationError",
    "DefinitionError",
    "DockerDeployer",
    "EngineError",
    "FlowctlError",
    "MemoryStorage",
    "NonRetriableError",
    "NotActiveError",
    "NotFoundError",
    "NotSuspendedError",
    "PostgresStorage",
    "RequestContext",
    "Run",
    "RunNotFoundError",
    "RunResult",
    "RunStateError",
    "SQLiteStorage",
    "ServerConfig",
    "StateTooLargeError",
    "Step",
    "StepContext",
    "StepNotFoundError",
    "StepResult",
    "StillRunningError",
    "StorageError",
    "TimeTravelError",
    "ValidationError",
    "VercelDeployer",
    "Workflow",
    "WorkflowEvent",
    "WorkflowNotFoundError",
    "clone_step",
    "clone_workflow",
    "create_step",
    "create_workflow",
    "init",
    "map_variable",
    "serve",
    "step",
]
