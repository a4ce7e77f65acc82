// Functions of the JavaScript SDK, served for the engine at ENGINE; CHECKPOINTING=no turns checkpoints off.
import { Hono } from "hono";
import { Inngest, NonRetriableError, RetryAfterError } from "inngest";
import { createDefer } from "inngest/experimental";
import { serve } from "inngest/hono";
import { listen } from "./listening.mjs";

const inngest = new Inngest({
  id: "js",
  isDev: true,
  baseUrl: process.env.ENGINE,
  checkpointing: process.env.CHECKPOINTING !== "no",
  logger: { info() {}, debug() {}, warn: console.warn, error: console.error },
});

const tries = new Map();
function attempt(runId) {
  tries.set(runId, (tries.get(runId) ?? 0) + 1);
  return tries.get(runId);
}

const define = (id, options, handler) =>
  inngest.createFunction({ id, triggers: [{ event: `js/${id}` }], retries: 0, ...options }, handler);

const later = createDefer(inngest, { id: "later" }, async ({ event, step }) =>
  step.sendEvent("tell", { name: "js/deferred", data: event.data }),
);

const functions = [
  define("steps", {}, async ({ event, step }) => {
    const first = await step.run("first", () => event.data.x + 1);
    await step.sleep("nap", "10ms");
    return await step.run("second", () => ({ sum: first + 1 }));
  }),

  define("retries", { retries: 2 }, async ({ runId, step }) =>
    step.run("flaky", () => {
      const n = attempt(runId);
      if (n < 3) throw new RetryAfterError("not yet", 10);
      return n;
    }),
  ),

  define("fails", { retries: 3 }, async ({ runId }) => {
    throw new NonRetriableError(`attempt ${attempt(runId)}`);
  }),

  define("catches", {}, async ({ step }) => {
    try {
      await step.run("broken", () => {
        throw new TypeError("no");
      });
    } catch (err) {
      return { name: err.name, message: err.message };
    }
  }),

  define("parallel", {}, async ({ step }) => {
    const both = await Promise.all([step.run("a", () => "a"), step.run("b", () => "b")]);
    return both.concat(await step.run("c", () => "c"));
  }),

  define("child", {}, async ({ event }) => event.data.n * 2),

  define("parent", {}, async ({ step }) => step.invoke("call", { function: functions[5], data: { n: 21 } })),

  define("waits", {}, async ({ event, step }) => {
    const got = await step.waitForEvent("wait", {
      event: "js/go",
      timeout: event.data.timeout ?? "1m",
      if: "event.data.key == async.data.key",
    });
    return got === null ? "nothing" : got.data.word;
  }),

  define("sends", {}, async ({ event, step }) => {
    const { ids } = await step.sendEvent("send", { name: "js/go", data: { key: event.data.key, word: "sent" } });
    return ids.length;
  }),

  define("cancels", { cancelOn: [{ event: "js/stop", match: "data.key" }] }, async ({ step }) => {
    await step.sleep("long", "1h");
  }),

  define("signals", {}, async ({ event, step }) => {
    const got = await step.waitForSignal("wait", { signal: event.data.signal, timeout: "1m" });
    return got?.data ?? null;
  }),

  define("signaller", {}, async ({ event, step }) => step.sendSignal("send", event.data)),

  define("fetches", {}, async ({ event, step }) => {
    const answer = await step.fetch(event.data.url, { method: "POST", body: "ping" });
    return { status: answer.status, text: await answer.text() };
  }),

  define("publishes", {}, async ({ event, step }) => {
    await step.realtime.publish("tell", { channel: event.data.channel, topic: "news", config: {} }, { n: 1 });
    await inngest.realtime.publish({ channel: event.data.channel, topic: "news", config: {} }, { n: 2 });
  }),

  define("races", {}, async ({ group, step }) =>
    group.parallel({ mode: "race" }, () =>
      Promise.race([
        step.sleep("slow", "1s").then(() => "slow"),
        step.run("quick", () => "quick"),
      ]),
    ),
  ),

  define("grows", {}, async ({ step }) => {
    const sizes = [];
    for (const n of [1, 2, 3]) sizes.push((await step.run(`part-${n}`, () => "x".repeat(2_000_000))).length);
    await step.sleep("nap", "10ms");
    return sizes;
  }),

  define("batches", { batchEvents: { maxSize: 3, timeout: "30s" } }, async ({ events }) =>
    events.map((event) => event.data.n),
  ),

  define("debounces", { debounce: { period: "1s" } }, async ({ event }) => event.data.n),

  define("singles", { singleton: { key: "event.data.k", mode: "skip" } }, async ({ step }) =>
    step.sleep("long", "1h"),
  ),

  define("throttles", { throttle: { limit: 1, period: "1h", key: "event.data.k" } }, async () => "ran"),

  define("expires", { timeouts: { finish: "1s" } }, async ({ step }) => step.sleep("long", "1h")),

  define("defers", {}, async ({ defer, event, step }) => {
    defer("later", { function: later, data: { key: event.data.key } });
    await step.sleep("nap", "10ms");
    return "deferred";
  }),
  later,

  inngest.createFunction(
    {
      id: "handled",
      triggers: [{ event: "js/handled" }],
      retries: 0,
      onFailure: async ({ error, step }) =>
        step.sendEvent("told", { name: "js/told", data: { message: error.message } }),
    },
    async () => {
      throw new Error("broken");
    },
  ),
];

const app = new Hono();
app.on(["GET", "PUT", "POST"], "/api/inngest", serve({ client: inngest, functions }));

// Subscribe to a channel by the SDK, have a function publish to it, and answer what came.
app.get("/heard/:channel", async (c) => {
  const channel = c.req.param("channel");
  const messages = [];
  const stream = await inngest.realtime.subscribe({ channel, topics: ["news"] });
  await inngest.send({ name: "js/publishes", data: { channel } });
  for await (const message of stream) {
    messages.push({ topic: message.topic, kind: message.kind, data: message.data });
    if (messages.length === 2) break;
  }
  stream.close();
  return c.json(messages);
});

// Publish a stream by the SDK.
app.post("/stream/:channel", async (c) => {
  const place = { channel: c.req.param("channel"), topics: ["news"] };
  await inngest["inngestApi"].publish(place, new Blob(["one ", "two"]).stream());
  return c.json({});
});

app.get("/ping", (c) => c.text("pong"));
app.post("/ping", async (c) => c.text(`pong ${await c.req.text()}`, 202));
listen(app);
