// ollama and @langchain/ollama on Node.
import { OllamaEmbeddings } from "@langchain/ollama";
import { Ollama } from "ollama";
import { CASE, KEY, TEXTS, URL, call, told } from "./calls.mjs";

const headers = (key) => ({ Authorization: `Bearer ${key}` });
const embed = async (options, key = KEY) => {
  const client = new Ollama({ host: URL, headers: headers(key) });
  return (await client.embed({ model: CASE.embedding, input: TEXTS, ...options })).embeddings;
};
await call("vectors", () => embed({}));
await call("one", () => embed({ input: TEXTS[0] }));
await call("shorter", () => embed({ dimensions: CASE.dimensions }));
await call("langchain", () =>
  new OllamaEmbeddings({ model: CASE.embedding, baseUrl: URL, headers: headers(KEY) }).embedDocuments(TEXTS),
);
await call("unknown_model", () => embed({ model: "nobody" }));
await call("wrong_key", () => embed({}, "wrong"));
told("ollama");
