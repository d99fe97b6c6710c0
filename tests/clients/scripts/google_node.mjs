// @google/genai, and LangChain's GoogleGenerativeAIEmbeddings: texts by use and size.
import { GoogleGenAI } from "@google/genai";
import { GoogleGenerativeAIEmbeddings } from "@langchain/google-genai";
import { CASE, KEY, TEXTS, URL, call, told } from "./calls.mjs";

const client = (apiKey) => new GoogleGenAI({ apiKey, httpOptions: { baseUrl: URL } });
const vectors = async (config, model = CASE.embedding, apiKey = KEY) =>
  (await client(apiKey).models.embedContent({ model, contents: TEXTS, config })).embeddings.map((entry) => entry.values);
await call("vectors", () => vectors());
await call("query", () => vectors({ taskType: "RETRIEVAL_QUERY" }));
await call("shorter", () => vectors({ outputDimensionality: CASE.dimensions }));
const langchain = (taskType) =>
  new GoogleGenerativeAIEmbeddings({ apiKey: KEY, model: CASE.embedding, baseUrl: URL, taskType, maxRetries: 0 });
await call("langchain_documents", () => langchain("RETRIEVAL_DOCUMENT").embedDocuments(TEXTS));
await call("langchain_query", async () => [await langchain("RETRIEVAL_QUERY").embedQuery(TEXTS[0])]);
await call("unknown_model", () => vectors({}, "nobody"));
await call("wrong_key", () => vectors({}, CASE.embedding, "wrong"));
told("@google/genai");
