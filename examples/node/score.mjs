// Usage: node score.mjs BUNDLE < queries.jsonl > decisions.jsonl
// Each input line is a query as JSON: a string, or a chat as a list of messages. Each output line is its decision.

import { createInterface } from "node:readline";

import { Router } from "./routelearn.mjs";

const router = await Router.load(process.argv[2]);
for await (const line of createInterface({ input: process.stdin })) {
  process.stdout.write(JSON.stringify(await router.route(JSON.parse(line))) + "\n");
}
