// openai on Node: base64 unless told, numbers, errors.
import OpenAI from "openai";
import { CASE, KEY, TEXTS, URL, call, told } from "./calls.mjs";

const client = (key = KEY) => new OpenAI({ baseURL: `${URL}/v1`, apiKey: key, maxRetries: 0 });
const create = async (options, key) => {
  const answer = await client(key).embeddings.create({ model: CASE.embedding, input: TEXTS, ...options });
  return answer.data.map((entry) => entry.embedding);
};
await call("vectors", () => create({}));
await call("numbers", () => create({ encoding_format: "float" }));
await call("one", () => create({ input: TEXTS[0] }));
await call("shorter", () => create({ dimensions: CASE.dimensions }));
await call("models", async () => (await client().models.list()).data.map((entry) => entry.id));
await call("unknown_model", () => create({ model: "nobody" }));
await call("too_many", () => create({ input: Array(CASE.too_many).fill("a") }));
await call("wrong_key", () => create({}, "wrong"));
told("openai");
