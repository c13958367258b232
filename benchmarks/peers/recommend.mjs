// Recommends in Node, with lsan.js or onnxruntime-web, and prints milliseconds as JSON: from nothing to the first answer,
// and of each further one; and the first ten answers.
//
//   node recommend.mjs lsan|onnxruntime MODULE FILE HISTORIES.json
import { readFileSync } from "node:fs";
import { pathToFileURL } from "node:url";

const [engine, module, file, histories] = process.argv.slice(2);
const questions = JSON.parse(readFileSync(histories, "utf8"));
const begun = performance.now();
const { recommend, sessionOf } = await { lsan, onnxruntime }[engine]();
const loaded = performance.now();
await recommend(questions[0]);
const first = performance.now();

const answers = [];
for (const question of questions.slice(0, 10)) answers.push(await recommend(question));
for (let i = 0; i < 5; i++) for (const question of questions) await recommend(question); // until V8 has compiled all
const recommended = await times((question) => () => recommend(question));
const appended = sessionOf ? await times(sessionOf) : [];
console.log(JSON.stringify({ load: loaded - begun, first: first - begun, recommended, appended, answers }));

/** Of what `prepare(question)` gives. */
async function times(prepare) {
  const taken = [];
  for (const question of questions) {
    const call = prepare(question);
    const before = performance.now();
    await call();
    taken.push(performance.now() - before);
  }
  return taken;
}

async function lsan() {
  const { load } = await import(pathToFileURL(module));
  const recommender = await load(file);
  return {
    recommend: (ids) => recommender.recommend(ids).items.map((item) => item.id),
    sessionOf: recommender.info.causal && ((ids) => {
      const session = recommender.session();
      for (const id of ids.slice(0, -1)) session.append(id);
      session.recommend();
      return () => {
        session.append(ids.at(-1));
        session.recommend();
      };
    }),
  };
}

async function onnxruntime() {
  const ort = await import(pathToFileURL(module));
  ort.env.wasm.numThreads = 1;
  const options = { executionProviders: ["wasm"], extra: { session: { disable_quant_qdq: "1" } } };
  const session = await ort.InferenceSession.create(readFileSync(file), options);
  const k = new ort.Tensor("int64", [10n], []);
  return {
    recommend: async (items) => {
      const history = new ort.Tensor("int32", Int32Array.from(items), [1, items.length]);
      const { indices } = await session.run({ items: history, k });
      return Array.from(indices.data, Number);
    },
  };
}
