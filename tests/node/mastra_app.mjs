// A Mastra workflow on the engine at ENGINE: it adds one, asks a person, and goes on with the answer.
import { Mastra } from "@mastra/core/mastra";
import { InMemoryStore } from "@mastra/core/storage";
import { init, serve } from "@mastra/inngest";
import { Hono } from "hono";
import { Inngest } from "inngest";
import { z } from "zod";
import { listen } from "./listening.mjs";

const inngest = new Inngest({ id: "mastra", isDev: true, baseUrl: process.env.ENGINE });
const { createWorkflow, createStep } = init(inngest);

const add = createStep({
  id: "add",
  inputSchema: z.object({ value: z.number() }),
  outputSchema: z.object({ value: z.number() }),
  execute: async ({ inputData }) => ({ value: inputData.value + 1 }),
});

const ask = createStep({
  id: "ask",
  inputSchema: z.object({ value: z.number() }),
  resumeSchema: z.object({ plus: z.number() }),
  suspendSchema: z.object({ question: z.string() }),
  outputSchema: z.object({ value: z.number() }),
  execute: async ({ inputData, resumeData, suspend }) => {
    if (!resumeData) return suspend({ question: `more than ${inputData.value}?` });
    return { value: inputData.value + resumeData.plus };
  },
});

const grow = createWorkflow({
  id: "grow",
  inputSchema: z.object({ value: z.number() }),
  outputSchema: z.object({ value: z.number() }),
})
  .dountil(add, async ({ inputData }) => inputData.value >= 3)
  .then(ask)
  .commit();

const broken = createWorkflow({
  id: "broken",
  inputSchema: z.object({}),
  outputSchema: z.object({}),
})
  .then(
    createStep({
      id: "fail",
      inputSchema: z.object({}),
      outputSchema: z.object({}),
      execute: async () => {
        throw new Error("no luck");
      },
    }),
  )
  .commit();

const mastra = new Mastra({ storage: new InMemoryStore(), workflows: { grow, broken }, logger: false });

const app = new Hono();
app.on(["GET", "PUT", "POST"], "/api/inngest", serve({ mastra, inngest }));

app.post("/start/:workflow/:runId", async (c) => {
  const run = await mastra.getWorkflow(c.req.param("workflow")).createRun({ runId: c.req.param("runId") });
  const seen = [];
  const unwatch = run.watch((event) => seen.push(event.type));
  const { status, result, error, steps } = await run.start({ inputData: await c.req.json() });
  unwatch();
  return c.json({ status, result, error: error?.message, payload: steps?.ask?.suspendPayload, seen });
});

app.post("/resume/:workflow/:runId", async (c) => {
  const run = await mastra.getWorkflow(c.req.param("workflow")).createRun({ runId: c.req.param("runId") });
  const { status, result } = await run.resume({ step: "ask", resumeData: await c.req.json() });
  return c.json({ status, result });
});

listen(app);
