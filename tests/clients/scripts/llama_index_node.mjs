// LlamaIndex.TS: getTextEmbeddings, getQueryEmbedding of its OpenAIEmbedding.
import { OpenAIEmbedding } from "@llamaindex/openai";
import { CASE, KEY, TEXTS, URL, call, told } from "./calls.mjs";

const embedding = (model = CASE.embedding, apiKey = KEY, options = {}) =>
  new OpenAIEmbedding({ model, apiKey, baseURL: `${URL}/v1`, maxRetries: 0, ...options });
await call("vectors", () => embedding().getTextEmbeddings(TEXTS));
await call("one", async () => [await embedding().getQueryEmbedding({ type: "text", text: TEXTS[0] })]);
await call("shorter", () => embedding(CASE.embedding, KEY, { dimensions: CASE.dimensions }).getTextEmbeddings(TEXTS));
await call("unknown_model", () => embedding("nobody").getTextEmbeddings(TEXTS));
await call("wrong_key", () => embedding(CASE.embedding, "wrong").getTextEmbeddings(TEXTS));
told("@llamaindex/openai");
