// Mastra: its model router's embeddings, with an address of one's own.
import { ModelRouterEmbeddingModel } from "@mastra/core/llm";
import { CASE, KEY, TEXTS, URL, call, told } from "./calls.mjs";

const vectors = async (modelId, values, apiKey = KEY) =>
  (await new ModelRouterEmbeddingModel({ providerId: "mine", modelId, url: `${URL}/v1`, apiKey }).doEmbed({ values })).embeddings;
await call("vectors", () => vectors(CASE.embedding, TEXTS));
await call("one", () => vectors(CASE.embedding, TEXTS.slice(0, 1)));
await call("unknown_model", () => vectors("nobody", TEXTS));
await call("wrong_key", () => vectors(CASE.embedding, TEXTS, "wrong"));
told("@mastra/core");
