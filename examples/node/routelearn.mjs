// Runs a routelearn bundle in Node. It reads router.json, model.onnx and tokenizer.json; docs/bundle.md specifies them.

import { createHash } from "node:crypto";
import { readFile } from "node:fs/promises";
import { join } from "node:path";

import { Tokenizer } from "@huggingface/tokenizers";

// onnxruntime sends usage data unless this is set before it is loaded. Who sets the variable decides.
process.env.ORT_DISABLE_TELEMETRY ??= "1";
const ort = await import("onnxruntime-node");

const SAID = new Set(["user", "assistant", "tool", "function", "human", "gpt", "model"]);

/** The text of one message's content: a string, null, or a list of multimodal parts. */
function contentText(content) {
  if (content === null) return "";
  if (typeof content === "string") return content;
  const parts = content.map((part) => (typeof part === "string" ? part : part.text));
  return parts.filter((part) => typeof part === "string" && part).join("\n");
}

/** The text that a router reads, within a budget of code points: the newest turn first, or both ends of the chat. */
export function queryText(query, maxCharacters, bothEnds = false) {
  let turns = [query];
  if (typeof query !== "string") {
    const said = query.filter((message) => SAID.has(message.role ?? "user"));
    const chosen = said.length ? said : query;
    turns = chosen.map((message) => contentText(message.content)).filter((text) => text);
    turns = bothEnds ? [turns.join("\n")] : turns.reverse();
  }
  const first = [...(turns[0] ?? "")];
  if (first.length > maxCharacters) {
    const head = Math.floor(maxCharacters / 2);
    const tail = maxCharacters - head - 1;
    return first.slice(0, head).join("") + "\n" + first.slice(first.length - tail).join("");
  }
  return [...turns.join("\n")].slice(0, maxCharacters).join("");
}

/** Expected win rate of the model with quality a over the model with quality b; a tie counts one half. */
function winRate(a, b, link) {
  if (link === "difference") return 0.5 + (a - b) / 2;
  const won = a * (1 - b) + 1e-7;
  return won / (won + b * (1 - a) + 1e-7);
}

export class Router {
  /** Load a bundle. Every hash is checked, and the golden queries must get the same qualities as at the export. */
  static async load(folder) {
    const manifest = JSON.parse(await readFile(join(folder, "router.json"), "utf8"));
    const version = manifest.format_version;
    if (version > 5) throw new Error(`format_version is ${version}; expected at most 5`);
    const { general, strong, weak, companion } = manifest;
    if (general && !(strong === "strong" && weak === "weak")) {
      throw new Error(`a general router for ${strong} and ${weak}, whose abilities this reader does not use`);
    }
    const own = await Graph.load(folder, manifest, "model.onnx", "tokenizer.json", manifest.truncation);
    const second = companion
      ? await Graph.load(folder, manifest, "general.onnx", "general_tokenizer.json", companion.truncation)
      : null;
    const router = new Router(manifest, own, second);
    for (const [place, golden] of manifest.golden.entries()) {
      const { ids, generalIds, quality } = await router.run(golden.query);
      const same = sameIds(ids, golden.ids) && (!companion || sameIds(generalIds, companion.golden_ids[place]));
      if (!same) throw new Error(`a tokenizer does not give the golden ids of ${JSON.stringify(golden.query)}`);
      const difference = Math.max(...quality.map((value, model) => Math.abs(value - golden.quality[model])));
      if (!(difference <= manifest.golden_tolerance)) {
        throw new Error(`the golden qualities differ by ${difference}; expected at most ${manifest.golden_tolerance}`);
      }
    }
    return router;
  }

  /** `own` is the graph of the router; `general` that of its companion, or null. */
  constructor(manifest, own, general) {
    this.manifest = manifest;
    this.models = manifest.pool.map((model) => model.name);
    this.own = own;
    this.general = general;
  }

  /** All token ids of one query, and the quality of every model, blended with the general one where there is one. */
  async run(query) {
    const { ids, outputs } = await this.own.run(query);
    const quality = Array.from(outputs.quality.data);
    if (!this.general) return { ids, generalIds: [], quality };
    const second = await this.general.run(query);
    const general = second.outputs.quality.data;
    const share = second.outputs.share.data[0];
    const blended = quality.map((own, model) => own + share * (general[model] - own));
    return { ids, generalIds: second.ids, quality: blended };
  }

  /** Expected win rate of the strong model over the weak one, in [0, 1]. */
  async score(query) {
    const { quality } = await this.run(query);
    const { strong, weak, link } = this.manifest;
    return winRate(quality[this.models.indexOf(strong)], quality[this.models.indexOf(weak)], link);
  }

  /** The model to ask: the strong one if the score is at or above the threshold. */
  async route(query, threshold = this.manifest.threshold) {
    const score = await this.score(query);
    return { model: score >= threshold ? this.manifest.strong : this.manifest.weak, score, threshold };
  }
}

/** One graph with its tokenizer. */
class Graph {
  static async load(folder, manifest, model, tokenizerFile, truncation) {
    const files = {};
    for (const name of [model, tokenizerFile]) {
      files[name] = await readFile(join(folder, name));
      const digest = createHash("sha256").update(files[name]).digest("hex");
      if (digest !== manifest.files[name]) throw new Error(`${name} was changed after the export`);
    }
    const session = await ort.InferenceSession.create(files[model], { intraOpNumThreads: 1 });
    return new Graph(truncation, new Tokenizer(JSON.parse(files[tokenizerFile]), {}), session);
  }

  constructor(truncation, tokenizer, session) {
    this.truncation = truncation;
    this.tokenizer = tokenizer;
    this.session = session;
    this.types = Object.fromEntries(session.inputMetadata.map((input) => [input.name, input.type]));
  }

  /** All token ids of one query, and the outputs; the network sees the ids within the token budget. */
  async run(query) {
    const { max_tokens, last_tokens = 0, characters_per_token, special_tokens, distinct } = this.truncation;
    const text = queryText(query, max_tokens * characters_per_token, last_tokens > 0);
    const ids = text || special_tokens ? this.tokenizer.encode(text, { add_special_tokens: special_tokens }).ids : [];
    const first = max_tokens - last_tokens;
    const kept = [...ids.slice(0, first), ...ids.slice(Math.max(first, ids.length - last_tokens))];
    const seen = new Set();
    const mask = kept.map((id) => (distinct && seen.has(id) ? 0 : (seen.add(id), 1)));
    const length = Math.max(1, kept.length);
    const feeds = {
      input_ids: tensor(this.types.input_ids, kept.length ? kept : [0], length),
      attention_mask: tensor(this.types.attention_mask, kept.length ? mask : [0], length),
    };
    return { ids, outputs: await this.session.run(feeds) };
  }
}

function sameIds(ids, golden) {
  return ids.length === golden.length && ids.every((id, place) => id === golden[place]);
}

function tensor(type, values, length) {
  const arrays = { int64: BigInt64Array, int32: Int32Array, uint8: Uint8Array };
  return new ort.Tensor(type, arrays[type].from(values, type === "int64" ? BigInt : Number), [1, length]);
}
