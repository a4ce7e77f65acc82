"""The Inngest client. `flowctl dev` points it at the engine it starts."""

import inngest

client = inngest.Inngest(app_id="__project__")
