// AI SDK: embed and embedMany through its providers for OpenAI, for what is compatible, Google, and Cohere with rerank.
import { createCohere } from "@ai-sdk/cohere";
import { createGoogleGenerativeAI } from "@ai-sdk/google";
import { createOpenAI } from "@ai-sdk/openai";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { embed, embedMany, rerank } from "ai";
import { CASE, KEY, QUERY, TEXTS, URL, call, told } from "./calls.mjs";

const compatible = createOpenAICompatible({ name: "mine", baseURL: `${URL}/v1`, apiKey: KEY });
const openai = createOpenAI({ baseURL: `${URL}/v1`, apiKey: KEY });
const cohere = createCohere({ baseURL: `${URL}/v2`, apiKey: KEY });
const compatibleModel = (name) => (compatible.embeddingModel ?? compatible.textEmbeddingModel).call(compatible, name);
const openaiModel = (name) => (openai.embeddingModel ?? openai.textEmbeddingModel).call(openai, name);
const cohereModel = (name) => (cohere.embeddingModel ?? cohere.textEmbeddingModel).call(cohere, name);
const many = async (model) => (await embedMany({ model, values: TEXTS, maxRetries: 0 })).embeddings;
await call("compatible", () => many(compatibleModel(CASE.embedding)));
await call("openai", () => many(openaiModel(CASE.embedding)));
await call("one", async () => [(await embed({ model: openaiModel(CASE.embedding), value: TEXTS[0] })).embedding]);
const google = createGoogleGenerativeAI({ baseURL: `${URL}/v1beta`, apiKey: KEY }).textEmbeddingModel(CASE.embedding);
const query = { google: { taskType: "RETRIEVAL_QUERY" } };
await call("google", () => many(google));
await call("google_query", async () => [(await embed({ model: google, value: TEXTS[0], providerOptions: query })).embedding]);
await call("cohere_query", () => many(cohereModel(CASE.embedding)));
await call("cohere_rerank", async () => {
  const found = await rerank({ model: cohere.reranking(CASE.reranker), query: QUERY, documents: TEXTS, maxRetries: 0 });
  return found.ranking.map((entry) => [entry.originalIndex, entry.score]);
});
await call("unknown_model", () => many(compatibleModel("nobody")));
await call("wrong_key", () => many(createOpenAICompatible({ name: "mine", baseURL: `${URL}/v1`, apiKey: "wrong" }).textEmbeddingModel(CASE.embedding)));
told("ai");
