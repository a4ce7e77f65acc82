// The smallest program: answers that it is there, and which versions it runs with.
import { Hono } from "hono";
import { listen } from "./listening.mjs";

const app = new Hono();
app.get("/", (c) => c.json({ node: process.version, given: process.env.GIVEN ?? null }));
listen(app);
