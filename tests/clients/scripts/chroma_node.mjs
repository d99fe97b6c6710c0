// Chroma's embedding function for OpenAI's API, as its collections call it.
import { OpenAIEmbeddingFunction } from "@chroma-core/openai";
import { CASE, KEY, TEXTS, URL, call, told } from "./calls.mjs";

const embed = (modelName = CASE.embedding, apiKey = KEY, options = {}) =>
  new OpenAIEmbeddingFunction({ modelName, apiKey, apiBase: `${URL}/v1`, ...options });
await call("vectors", () => embed().generate(TEXTS));
await call("shorter", () => embed(CASE.embedding, KEY, { dimensions: CASE.dimensions }).generate(TEXTS));
await call("unknown_model", () => embed("nobody").generate(TEXTS));
await call("wrong_key", () => embed(CASE.embedding, "wrong").generate(TEXTS));
told("@chroma-core/openai");
