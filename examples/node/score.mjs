// node score.mjs BUNDLE < queries.jsonl > scores.jsonl: a JSON string or a JSON chat a line; a decision a line.

import { createInterface } from "node:readline";

import { Router } from "./routelearn.mjs";

const router = await Router.load(process.argv[2]);
for await (const line of createInterface({ input: process.stdin })) {
  process.stdout.write(JSON.stringify(await router.route(JSON.parse(line))) + "\n");
}
