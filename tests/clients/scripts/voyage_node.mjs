// voyageai: vectors by use and size; rerank; errors.
import { VoyageAIClient } from "voyageai";
import { CASE, KEY, QUERY, TEXTS, URL, call, told } from "./calls.mjs";

const client = (apiKey = KEY) => new VoyageAIClient({ apiKey, environment: `${URL}/v1` });
const vectors = async (options, apiKey) =>
  (await client(apiKey).embed({ model: CASE.embedding, input: TEXTS, ...options }, { maxRetries: 0 })).data.map((entry) => entry.embedding);
await call("vectors", () => vectors());
await call("query", () => vectors({ inputType: "query" }));
await call("shorter", () => vectors({ outputDimension: CASE.dimensions }));
await call("rerank", async () => {
  const found = await client().rerank({ model: CASE.reranker, query: QUERY, documents: TEXTS, topK: 2 });
  return found.data.map((entry) => [entry.index, entry.relevanceScore]);
});
await call("unknown_model", () => vectors({ model: "nobody" }));
await call("wrong_key", () => vectors({}, "wrong"));
told("voyageai");
