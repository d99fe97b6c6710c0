// cohere-ai on Node: embed and rerank of its second API.
import { CohereClientV2 } from "cohere-ai";
import { CASE, KEY, QUERY, TEXTS, URL, call, told } from "./calls.mjs";

const client = (token = KEY) => new CohereClientV2({ token, environment: URL });
const once = { maxRetries: 0 };
const embed = async (inputType) =>
  (await client().embed({ model: CASE.embedding, texts: TEXTS, inputType, embeddingTypes: ["float"] }, once)).embeddings.float;
const rerank = async (model, token) => {
  const answer = await client(token).rerank({ model, query: QUERY, documents: TEXTS }, once);
  return answer.results.map((result) => [result.index, result.relevanceScore]);
};
await call("documents", () => embed("search_document"));
await call("query", () => embed("search_query"));
await call("rerank", () => rerank(CASE.reranker));
await call("unknown_model", () => rerank("nobody"));
await call("wrong_key", () => rerank(CASE.reranker, "wrong"));
told("cohere-ai");
