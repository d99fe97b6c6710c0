// @huggingface/inference: an endpoint's address.
import { InferenceClient } from "@huggingface/inference";
import { KEY, TEXTS, URL, call, told } from "./calls.mjs";

const client = (key = KEY) => new InferenceClient(key, { endpointUrl: URL });
await call("vectors", () => client().featureExtraction({ inputs: TEXTS }));
await call("one", () => client().featureExtraction({ inputs: TEXTS[0] }));
await call("similarity", () =>
  client().sentenceSimilarity({ inputs: { source_sentence: TEXTS[0], sentences: TEXTS.slice(1) } }));
await call("wrong_key", () => client("wrong").featureExtraction({ inputs: TEXTS }));
told("@huggingface/inference");
