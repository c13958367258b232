// Loads every file of a folder and uses what was loaded. Prints how many were refused; ends with 1 at anything but an
// LsanError, and where the engine stopped.
import { load, LsanError } from "../../src/lsan/javascript/lsan.js";
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";

const wasm = await WebAssembly.compile(readFileSync(new URL("../../src/lsan/javascript/lsan.wasm", import.meta.url)));
const folder = process.argv[2];
let refused = 0;
for (const name of readdirSync(folder)) {
  try {
    const recommender = await load(readFileSync(join(folder, name)), { wasm });
    const ids = recommender.popular(5).map((item) => item.id);
    const answer = recommender.recommend(ids, { at: 1e9, filter: { forbidCategories: ["category 1"] } });
    if (answer.items.length > 10 || answer.items.some((item) => !recommender.item(item.id))) throw new Error("wrong items");
    const session = recommender.session();
    for (const id of ids) session.append(id, 1e9);
    session.recommend();
    if (ids.length) recommender.similar(ids[0]);
    if (ids.length) recommender.explain(ids, ids[0]);
    recommender.search("title 1");
  } catch (error) {
    if (!(error instanceof LsanError) || error.cause) {
      console.error(name, error);
      process.exit(1);
    }
    refused++;
  }
}
console.log(refused);
