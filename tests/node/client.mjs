// Drives a server by Mastra's client, unchanged, and writes what it saw as one line of JSON.
import { MastraClient } from "@mastra/client-js";

const client = new MastraClient({ baseUrl: process.env.SERVER, retries: 0 });
const talk = client.getWorkflow("talk");
const types = async (stream) => {
  const seen = [];
  for await (const event of stream) seen.push(event.type);
  return seen;
};

const seen = {};
seen.workflows = Object.keys(await client.listWorkflows());
seen.counts = (await client.listWorkflowRunCounts()).talk;
seen.steps = Object.keys((await talk.details()).steps);
seen.schema = (await talk.getSchema()).inputSchema.properties.value.type;

const started = await client.getWorkflow("counter").createRun();
seen.result = (await started.startAsync({ inputData: { value: 5 } })).result;
const background = await client.getWorkflow("counter").createRun({ resourceId: "ada" });
seen.message = (await background.start({ inputData: { value: 9 } })).message;
seen.observed = await types(await background.observe());
seen.skipped = await types(await background.observe({ offset: 3 }));

const streamed = await talk.createRun({ runId: "streamed" });
seen.suspended = await types(await streamed.stream({ inputData: { value: 1 }, closeOnSuspend: true }));
seen.waiting = (await talk.runById("streamed", { fields: ["steps"] })).steps.ask.suspendPayload;
seen.resumed = await types(await streamed.resumeStream({ step: "ask", resumeData: { add: 4 } }));
seen.stored = (await talk.runById("streamed")).result;

const asked = await talk.createRun();
seen.asked = (await asked.startAsync({ inputData: { value: 1 } })).suspended;
seen.answered = (await asked.resumeAsync({ step: ["ask"], resumeData: { add: 2 } })).result;
seen.travelled = (await asked.timeTravelAsync({
  step: "ask", inputData: { value: 7 }, resumeData: { add: 1 } })).result;
seen.travel = await types(await asked.timeTravelStream({
  step: "ask", inputData: { value: 7 }, resumeData: { add: 1 } }));

const later = await talk.createRun();
await later.startAsync({ inputData: { value: 1 } });
seen.noWait = (await later.resumeNoWait({ step: "ask", resumeData: { add: 2 } })).runId === later.runId;
seen.followed = (await types(await later.observe())).at(-1);
seen.context = (await later.timeTravelAsync({ step: "ask", inputData: { value: 1 }, resumeData: { add: 1 },
  requestContext: { user: "ada" }, context: {}, nestedStepsContext: {} })).status;

const slow = await client.getWorkflow("slow").createRun();
await slow.start({ inputData: { value: 1 } });
await slow.cancel();
seen.canceled = (await client.getWorkflow("slow").runById(slow.runId)).status;
seen.restart = await slow.restartAsync().catch((error) => error.status);
seen.invalid = await started.startAsync({ inputData: { value: "x" } }).catch((error) => error.status);
seen.page = (await client.getWorkflow("counter").runs({ resourceId: "ada", limit: 5, offset: 0 })).total;
await talk.deleteRunById("streamed");
seen.deleted = await talk.runById("streamed").catch((error) => error.status);

console.log(JSON.stringify(seen));
