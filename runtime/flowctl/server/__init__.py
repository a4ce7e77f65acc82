"""The HTTP side of an app: REST API, `/api/inngest`, pages. Imports Starlette, so only on demand."""
