// @mistralai/mistralai: vectors by size; errors.
import { Mistral } from "@mistralai/mistralai";
import { CASE, KEY, TEXTS, URL, call, told } from "./calls.mjs";

const vectors = async (options, apiKey = KEY) => {
  const client = new Mistral({ apiKey, serverURL: URL });
  const answer = await client.embeddings.create({ model: CASE.embedding, inputs: TEXTS, ...options });
  return answer.data.map((entry) => entry.embedding);
};
await call("vectors", () => vectors());
await call("one", () => vectors({ inputs: TEXTS[0] }));
await call("shorter", () => vectors({ outputDimension: CASE.dimensions }));
await call("unknown_model", () => vectors({ model: "nobody" }));
await call("wrong_key", () => vectors({}, "wrong"));
told("@mistralai/mistralai");
