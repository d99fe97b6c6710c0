// transformers.js: the feature-extraction pipeline, which pools as it is told.
import { readFileSync, writeFileSync } from "node:fs";
import { basename, dirname } from "node:path";
import { env, pipeline } from "@huggingface/transformers";

const [directory, texts, out] = process.argv.slice(2);
env.allowRemoteModels = false;
env.localModelPath = dirname(directory);
const extract = await pipeline("feature-extraction", basename(directory), { dtype: "fp32" });
const vectors = [];
for (const text of JSON.parse(readFileSync(texts, "utf8")))
  vectors.push((await extract(text, { pooling: "mean", normalize: true })).tolist()[0]);
writeFileSync(out, JSON.stringify(vectors));
