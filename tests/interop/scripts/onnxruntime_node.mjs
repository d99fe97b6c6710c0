// onnxruntime on Node: RUNTIME is onnxruntime-node (native) or onnxruntime-web (WebAssembly).
import { readFileSync, writeFileSync } from "node:fs";
import { Tokenizer } from "@huggingface/tokenizers";

const [directory, texts, out] = process.argv.slice(2);
const { InferenceSession, Tensor } = await import(process.env.RUNTIME);
const read = (name) => JSON.parse(readFileSync(`${directory}/${name}`, "utf8"));
const settings = read("tokenizer_config.json");
const tokenizer = new Tokenizer(read("tokenizer.json"), settings);
const session = await InferenceSession.create(readFileSync(`${directory}/model.onnx`));
const vectors = [];
for (const text of JSON.parse(readFileSync(texts, "utf8"))) {
  let ids = tokenizer.encode(text).ids;
  const most = settings.model_max_length; // cut, with the token that ends every text kept
  if (ids.length > most) ids = [...ids.slice(0, most - 1), ids.at(-1)];
  const tensor = (values) => new Tensor("int64", BigInt64Array.from(values, BigInt), [1, values.length]);
  const feeds = { input_ids: tensor(ids), attention_mask: tensor(ids.map(() => 1)) };
  vectors.push(Array.from((await session.run(feeds, ["sentence_embedding"])).sentence_embedding.data));
}
writeFileSync(out, JSON.stringify(vectors));
