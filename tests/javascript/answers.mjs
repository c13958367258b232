// Answers what test_answers.py asks: a list of [file, method, ...arguments] on standard input, one answer for each on
// standard output. What is thrown is an answer too: its kind and its message.
import { load } from "../../src/lsan/javascript/lsan.js";
import { readFileSync } from "node:fs";

const recommenders = new Map();

async function answer([file, method, ...values]) {
  if (!recommenders.has(file)) recommenders.set(file, await load(file));
  const recommender = recommenders.get(file);
  if (method === "session") {
    const [options, ...steps] = values;
    const session = recommender.session(options);
    const found = steps.map(([step, ...what]) => session[step](...what));
    session.close();
    return found;
  }
  const found = recommender[method];
  return typeof found === "function" ? found.apply(recommender, values) : found;
}

const answers = [];
for (const question of JSON.parse(readFileSync(0, "utf8"))) {
  try {
    answers.push(await answer(question));
  } catch (error) {
    answers.push({ kind: error.constructor.name, message: error.message });
  }
}
process.stdout.write(JSON.stringify(answers));
