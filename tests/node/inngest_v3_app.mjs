// Functions of the JavaScript SDK's third major version, served for the engine at ENGINE as streams.
import { Hono } from "hono";
import { Inngest, RetryAfterError } from "inngest-v3";
import { serve } from "inngest-v3/hono";
import { listen } from "./listening.mjs";

const inngest = new Inngest({ id: "v3", isDev: true, baseUrl: process.env.ENGINE });
const tries = new Map();

const define = (id, options, handler) =>
  inngest.createFunction({ id, retries: 0, ...options }, { event: `js/${id}` }, handler);

const child = define("child", {}, async ({ event }) => event.data.n * 2);

const functions = [
  child,

  define("steps", {}, async ({ event, step }) => {
    const first = await step.run("first", () => event.data.x + 1);
    await step.sleep("less than a second", "10ms");
    return await step.run("second", () => ({ sum: first + 1 }));
  }),

  define("retries", { retries: 2 }, async ({ runId, step }) =>
    step.run("flaky", () => {
      tries.set(runId, (tries.get(runId) ?? 0) + 1);
      if (tries.get(runId) < 3) throw new RetryAfterError("not yet", 10);
      return tries.get(runId);
    }),
  ),

  define("parallel", {}, async ({ step }) => {
    const both = await Promise.all([step.run("a", () => "a"), step.run("b", () => "b")]);
    return both.concat(await step.run("c", () => "c"));
  }),

  define("parent", {}, async ({ step }) => step.invoke("call", { function: child, data: { n: 21 } })),

  define("meets", {}, async ({ step }) => {
    const met = step.waitForEvent("wait", { event: "js/go", timeout: "1m" });
    const sent = step.sendEvent("send", { name: "js/go", data: { word: "sent" } });
    return (await Promise.all([met, sent]))[0].data.word;
  }),

  define("catches", {}, async ({ step }) =>
    step
      .run("broken", () => {
        throw new TypeError("no");
      })
      .catch((err) => ({ name: err.name, message: err.message })),
  ),

  define("cancels", { cancelOn: [{ event: "js/stop", match: "data.key" }] }, async ({ step }) =>
    step.sleep("long", "1h"),
  ),
];

const app = new Hono();
app.on(["GET", "PUT", "POST"], "/api/inngest", serve({ client: inngest, functions, streaming: "force" }));
listen(app);
