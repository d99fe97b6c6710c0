// @langchain/openai: embedDocuments, embedQuery.
import { OpenAIEmbeddings } from "@langchain/openai";
import { CASE, KEY, TEXTS, URL, call, told } from "./calls.mjs";

const embeddings = (model = CASE.embedding, key = KEY, options = {}) =>
  new OpenAIEmbeddings({ model, apiKey: key, maxRetries: 0, configuration: { baseURL: `${URL}/v1` }, ...options });
await call("vectors", () => embeddings().embedDocuments(TEXTS));
await call("one", async () => [await embeddings().embedQuery(TEXTS[0])]);
await call("shorter", () => embeddings(CASE.embedding, KEY, { dimensions: CASE.dimensions }).embedDocuments(TEXTS));
await call("unknown_model", () => embeddings("nobody").embedDocuments(TEXTS));
await call("wrong_key", () => embeddings(CASE.embedding, "wrong").embedDocuments(TEXTS));
told("@langchain/openai");
