// transformers.js: the vectors of the graph, in batches.
import { readFileSync, writeFileSync } from "node:fs";
import { basename, dirname } from "node:path";
import { AutoModel, AutoTokenizer, env } from "@huggingface/transformers";

const [directory, texts, out] = process.argv.slice(2);
env.allowRemoteModels = false;
env.localModelPath = dirname(directory);
const tokenizer = await AutoTokenizer.from_pretrained(basename(directory));
const model = await AutoModel.from_pretrained(basename(directory), { dtype: "fp32" });
const all = JSON.parse(readFileSync(texts, "utf8"));
const vectors = [];
for (let start = 0; start < all.length; start += 16) {
  const inputs = tokenizer(all.slice(start, start + 16), { padding: true, truncation: true });
  vectors.push(...(await model(inputs)).sentence_embedding.tolist());
}
writeFileSync(out, JSON.stringify(vectors));
