"""The part of the Inngest server's GraphQL schema that this engine answers, with its names and shapes."""

from __future__ import annotations

SCHEMA = """
scalar Time
scalar Bytes
scalar ULID
scalar UUID
scalar Unknown
scalar Map

type Query {
  apps: [App!]!
  functions: [Function!]
  functionBySlug(query: FunctionQuery!): Function
  stream(query: StreamQuery!): [StreamItem!]!
  event(query: EventQuery!): Event
  events(query: EventsQuery!): [Event!]
  eventV2(id: ULID!): EventV2!
  eventsV2(first: Int! = 40, after: String, filter: EventsFilter!): EventsConnection!
  runs(
    first: Int! = 100, after: String, orderBy: [RunsV2OrderBy!]!, filter: RunsFilterV2!, preview: Boolean
  ): RunsV2Connection!
  functionRun(query: FunctionRunQuery!): FunctionRun
  run(runID: String!): FunctionRunV2
  runTrace(runID: String!): RunTraceSpan!
  runTrigger(runID: String!): RunTraceTrigger!
  runTraceSpanOutputByID(outputID: String!): RunTraceSpanOutput!
}

type Mutation {
  cancelRun(runID: ULID!): FunctionRun!
  invokeFunction(data: Map, functionSlug: String!, meta: Map, user: Map): Boolean
  deleteAppByName(name: String!): Boolean!
}

input EventQuery { workspaceId: ID! = "local" eventId: ID! }
input EventsQuery { workspaceId: ID! = "local" lastEventId: ID }
input FunctionQuery { workspaceId: ID! = "local" functionSlug: String! }
input FunctionRunQuery { workspaceId: ID! = "local" functionRunId: ID! }
input StreamQuery { after: ID before: ID limit: Int! = 20 includeInternalEvents: Boolean }

input EventsFilter {
  eventNames: [String!] from: Time! includeInternalEvents: Boolean! = false query: String until: Time
}
input RunsFilterV2 {
  from: Time! until: Time timeField: RunsV2OrderByField = QUEUED_AT status: [FunctionRunStatus!]
  functionIDs: [UUID!] appIDs: [UUID!] query: String
}
input RunsV2OrderBy { field: RunsV2OrderByField! direction: RunsOrderByDirection! }

enum RunsV2OrderByField { QUEUED_AT STARTED_AT ENDED_AT }
enum RunsOrderByDirection { ASC DESC }
enum FunctionRunStatus { COMPLETED FAILED CANCELLED RUNNING QUEUED SKIPPED }
enum RunTraceSpanStatus { COMPLETED FAILED CANCELLED RUNNING QUEUED WAITING SKIPPED }
enum FunctionTriggerTypes { EVENT CRON }
enum StreamType { EVENT CRON }

type App {
  id: ID! externalID: String! name: String! sdkLanguage: String! sdkVersion: String! framework: String
  url: String functions: [Function!]! functionCount: Int! connected: Boolean! error: String
}

type Function {
  id: String! name: String! slug: String! config: String! triggers: [FunctionTrigger!] url: String!
  appID: String!
}

type FunctionTrigger { type: FunctionTriggerTypes! value: String! condition: String }

type StreamItem {
  id: ID! trigger: String! type: StreamType! createdAt: Time! runs: [FunctionRun] inBatch: Boolean!
}

type Event {
  id: ULID! externalID: String name: String createdAt: Time payload: String raw: String totalRuns: Int
  functionRuns: [FunctionRun!]
}

type PageInfo { hasNextPage: Boolean! hasPreviousPage: Boolean! startCursor: String endCursor: String }

type EventsConnection { edges: [EventsEdge!]! pageInfo: PageInfo! totalCount: Int! }

type EventsEdge { node: EventV2! cursor: String! }

type RunsV2Connection {
  edges: [FunctionRunV2Edge!]! pageInfo: PageInfo! totalCount(preview: Boolean): Int!
}

type FunctionRunV2Edge { node: FunctionRunV2! cursor: String! }

type EventV2 {
  envID: UUID! id: ULID! idempotencyKey: String name: String! occurredAt: Time! raw: String!
  receivedAt: Time! runs: [FunctionRunV2!]!
}

type FunctionRun {
  id: ID! functionID: String! function: Function status: FunctionRunStatus startedAt: Time finishedAt: Time
  output: String eventID: ID! event: Event
}

type FunctionRunV2 {
  id: ULID! appID: UUID! app: App functionID: UUID! function: Function traceID: String!
  queuedAt: Time! startedAt: Time endedAt: Time status: FunctionRunStatus! triggerIDs: [ULID!]!
  eventName: String isBatch: Boolean! cronSchedule: String isDeferred: Boolean! output: Bytes
  trace(preview: Boolean): RunTraceSpan
}

type RunTraceSpan {
  runID: ULID! functionID: UUID! spanID: String! traceID: String! name: String! stepID: String
  stepType: String! status: RunTraceSpanStatus! attempts: Int duration: Int outputID: String queuedAt: Time!
  startedAt: Time endedAt: Time childrenSpans: [RunTraceSpan!]! isRoot: Boolean! metadata: [SpanMetadata!]!
}

type SpanMetadata { scope: String! kind: String! values: Map! updatedAt: Time! }

type RunTraceSpanOutput { input: Bytes data: Bytes error: StepError }

type StepError { message: String! name: String stack: String cause: Unknown }

type RunTraceTrigger {
  eventName: String IDs: [ULID!]! payloads: [Bytes!]! timestamp: Time! isBatch: Boolean!
}
"""
