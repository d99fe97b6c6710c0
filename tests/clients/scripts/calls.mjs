// What the scripts share: the case that a test gave, the calls of a client one by one, what each gave as JSON on stdout.
import { readFileSync } from "node:fs";

export const CASE = JSON.parse(readFileSync(0, "utf8"));
export const { url: URL, key: KEY, texts: TEXTS, query: QUERY } = CASE;
const done = {};

export async function call(name, make) {
  try {
    done[name] = { gave: await make() };
  } catch (error) {
    const kinds = [];
    for (let kind = error; kind && kind !== Object.prototype; kind = Object.getPrototypeOf(kind))
      if (Object.hasOwn(kind, "constructor")) kinds.push(kind.constructor.name);
    const status = error.status ?? error.statusCode ?? error.status_code ?? null;
    done[name] = { raised: [error.name, ...kinds], status, said: String(error.message ?? error) };
  }
}

export function told(name) {
  const { version } = JSON.parse(readFileSync(new globalThis.URL(`./node_modules/${name}/package.json`, import.meta.url), "utf8"));
  process.stdout.write(JSON.stringify({ version, calls: done }));
}
