// How a program of this folder starts: it listens on a free port of this machine and tells which.
import { createAdaptorServer } from "@hono/node-server";

export function listen(app) {
  const server = createAdaptorServer({ fetch: app.fetch });
  server.listen(0, "127.0.0.1", () => console.log(`listening ${server.address().port}`));
  process.on("SIGTERM", () => process.exit(0));
}
