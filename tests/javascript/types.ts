// Compiled by a test, never run: how lsan.js may be called, and how not.
import { load, LsanError, type ItemId, type Recommender, type Session } from "../../src/lsan/javascript/lsan.js";

const recommender: Recommender = await load(new URL("model.lsan", import.meta.url), {
  wasm: new Uint8Array(8),
  onProgress: (bytes, total) => console.log(total === null ? bytes : bytes / total),
});
await load("model.lsan");
await load(new ArrayBuffer(8));
await load(await fetch("model.lsan"));

const { items, unknownIds, byPopularity } = recommender.recommend(["a", 17, 17n], {
  k: 5,
  times: [new Date(), 1_750_000_000, null],
  at: new Date(),
  excludeSeen: false,
  filter: { allow: new Set(["b"]), forbidCategories: ["lamps"] },
});
for (const { id, title, category, score } of items) {
  const found: [ItemId, string, string | null, number] = [id, title, category, score];
  console.log(found, unknownIds.length, byPopularity === true);
}
const session: Session = recommender.session({ excludeSeen: true });
const known: boolean = session.append("a", new Date());
session.recommend({ k: 3, at: 1_750_000_000, filter: { allow: ["a"] } }).items.map((item) => item.title.length);
const similarity: number = recommender.similar("a", { k: 3 })[0]!.similarity;
const contribution: number = recommender.explain(["a"], "b", { at: new Date() })[0]!.contribution;
const titles: string[] = recommender.search("lamp", { k: 3 }).map((item) => item.title);
const names: readonly string[] = recommender.info.categories;
const lengths: number = session.length + recommender.size + recommender.info.items + recommender.popular(3).length;
console.log(known, similarity, contribution, titles, names, lengths, recommender.item("a")?.category ?? "none");
session.close();
recommender.close();
console.log(new LsanError("why") instanceof Error);

// @ts-expect-error a history is a list
recommender.recommend("a");
// @ts-expect-error k is a number
recommender.recommend([], { k: "5" });
// @ts-expect-error there is no such option
recommender.recommend([], { exclude_seen: true });
// @ts-expect-error what is loaded cannot be changed
recommender.info.items = 3;
// @ts-expect-error load takes an address or bytes
await load(5);
