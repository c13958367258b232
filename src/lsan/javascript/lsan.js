/**
 * Recommendations from one .lsan file, in a browser, in a worker or in Node. Types: lsan.d.ts.
 * The engine is lsan.wasm, the same C as lsan.runtime's; nothing leaves the device.
 */

/** What is wrong with a file or a call, and what was expected. */
export class LsanError extends Error {
  name = "LsanError";
}

/** Loads a .lsan file: from an address, a response, bytes, or in Node from a path. */
export async function load(source, { wasm = new URL("./lsan.wasm", import.meta.url), onProgress } = {}) {
  const [module, content] = await Promise.all([moduleOf(wasm), bytesOf(source, onProgress)]);
  const { exports } = await WebAssembly.instantiate(module, {});
  return new Recommender(new Engine(exports, content), new Bundle(content));
}

const LATEST = 7_258_118_400; // 2200-01-01 in seconds since 1970
const WHOLE_NUMBER = /^(0|-?[1-9][0-9]{0,18})$/;

function expect(truth, message) {
  if (!truth) throw new LsanError(message);
}

/** A response, or in Node a file's bytes. */
async function open(source) {
  if (source instanceof Response) return source;
  const text = String(source);
  const inNode = globalThis.process?.versions?.node !== undefined && globalThis.document === undefined;
  if (inNode && (text.startsWith("file:") || !/^[a-z][a-z0-9+.-]+:/i.test(text))) {
    const files = "node:fs/promises"; // not for bundlers
    const { readFile } = await import(/* webpackIgnore: true */ /* @vite-ignore */ files);
    return new Uint8Array(await readFile(text.startsWith("file:") ? new URL(text) : text));
  }
  return fetch(source);
}

async function bytesOf(source, onProgress) {
  if (source instanceof ArrayBuffer) return new Uint8Array(source);
  if (ArrayBuffer.isView(source)) return new Uint8Array(source.buffer, source.byteOffset, source.byteLength);
  expect(
    typeof source === "string" || source instanceof URL || source instanceof Response,
    "load needs an address, a Response or bytes",
  );
  const name = source instanceof Response ? source.url : source;
  const found = await open(source).catch((error) => {
    throw new LsanError(`${name}: cannot be read (${error.message})`, { cause: error });
  });
  if (!(found instanceof Response)) {
    onProgress?.(found.length, found.length);
    return found;
  }
  expect(found.ok, `${name}: cannot be read (status ${found.status})`);
  if (!onProgress || !found.body) return new Uint8Array(await found.arrayBuffer());
  const coded = found.headers.get("content-encoding") ?? "identity"; // then the length is not that of the file
  const total = coded === "identity" ? Number(found.headers.get("content-length")) || null : null;
  const pieces = [];
  let length = 0;
  for (const reader = found.body.getReader(); ; ) {
    const { done, value } = await reader.read();
    if (done) break;
    pieces.push(value);
    onProgress((length += value.length), total);
  }
  const content = new Uint8Array(length);
  for (const piece of pieces.reverse()) content.set(piece, (length -= piece.length));
  return content;
}

async function moduleOf(wasm) {
  if (wasm instanceof WebAssembly.Module) return wasm;
  if (wasm instanceof ArrayBuffer || ArrayBuffer.isView(wasm)) return WebAssembly.compile(wasm);
  const found = await open(wasm);
  if (!(found instanceof Response)) return WebAssembly.compile(found);
  expect(found.ok, `${wasm}: cannot be read (status ${found.status})`);
  const streams = found.headers.get("content-type")?.startsWith("application/wasm");
  return streams ? WebAssembly.compileStreaming(found) : WebAssembly.compile(await found.arrayBuffer());
}

/** Tensors of a file by name, and its manifest. The engine has read the same bytes before and refused what is no bundle. */
class Bundle {
  #tensors = new Map();

  constructor(content) {
    const size = Number(new DataView(content.buffer, content.byteOffset).getBigUint64(0, true));
    const text = new TextDecoder();
    const header = JSON.parse(text.decode(content.subarray(8, 8 + size)));
    for (const [name, { dtype, data_offsets: ends }] of Object.entries(header)) {
      if (ends) this.#tensors.set(name, { dtype, bytes: content.subarray(8 + size + ends[0], 8 + size + ends[1]) });
    }
    this.manifest = JSON.parse(text.decode(this.tensor("manifest", "U8")));
  }

  has(name) {
    return this.#tensors.has(name);
  }

  /** A copy of a tensor's bytes; `length` is how many, where that is known. */
  tensor(name, dtype, length) {
    const found = this.#tensors.get(name);
    expect(found?.dtype === dtype, `there is no tensor ${name} of type ${dtype}`);
    expect(length === undefined || found.bytes.length === length, `${name}: not as long as expected`);
    return found.bytes.slice();
  }

  /** Packed whole numbers of `bits` bits each, the highest bit first. */
  packed(name, bits, count) {
    const bytes = this.tensor(name, "U8", Math.ceil((count * bits) / 8));
    const numbers = new Uint32Array(count);
    for (let i = 0, bit = 0; i < count; i++) {
      let number = 0;
      for (let left = bits; left > 0; ) {
        const taken = Math.min(left, 8 - (bit & 7));
        number = number * 2 ** taken + ((bytes[bit >>> 3] >> (8 - (bit & 7) - taken)) & (2 ** taken - 1));
        bit += taken;
        left -= taken;
      }
      numbers[i] = number;
    }
    return numbers;
  }

  /** Texts of UTF-8 bytes, as a function of their place. */
  texts(name, count) {
    const bytes = this.tensor(`${name}.bytes`, "U8");
    const words = new Uint32Array(this.tensor(`${name}.ends`, "I64", 8 * count).buffer);
    const ends = new Uint32Array(count); // in UTF-16 units
    let text;
    try {
      text = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes);
    } catch {
      throw new LsanError(`${name}.bytes: not UTF-8`);
    }
    for (let i = 0, at = 0, units = 0; i < count; i++) {
      const end = words[2 * i];
      expect(!words[2 * i + 1] && end >= at && end <= bytes.length, `${name}.ends: outside ${name}.bytes`);
      for (; at < end; at++) units += bytes[at] >= 0xf0 ? 2 : (bytes[at] & 0xc0) !== 0x80;
      expect((bytes[at] & 0xc0) !== 0x80, `${name}.ends: cuts a character in two`);
      ends[i] = units;
    }
    expect(count === 0 || ends[count - 1] === text.length, `${name}.ends: not the end of ${name}.bytes`);
    return (place) => text.slice(place ? ends[place - 1] : 0, ends[place]);
  }
}

/** Raw ids, titles and categories of the items 1..V. */
class Vocabulary {
  #idAt; // of a place, item - 1
  #places = null; // by id; null where the ids are 1..V
  #titleAt = () => "";
  #categoryOf = null;

  constructor(bundle) {
    const { items, categories } = bundle.manifest;
    this.size = items;
    this.#idAt = (place) => place + 1;
    if (bundle.has("ids.numbers")) {
      const numbers = new BigInt64Array(bundle.tensor("ids.numbers", "I64", 8 * items).buffer);
      this.#idAt = (place) => idOf(numbers[place]);
    } else if (bundle.has("ids.bytes")) {
      this.#idAt = bundle.texts("ids", items);
    }
    if (bundle.has("ids.numbers") || bundle.has("ids.bytes")) {
      this.#places = new Map();
      for (let place = 0; place < items; place++) this.#places.set(this.#idAt(place), place);
      expect(this.#places.size === items, "two items have the same id");
    }
    if (bundle.has("titles.bytes")) this.#titleAt = bundle.texts("titles", items);
    this.categories = [];
    if (categories) {
      const nameAt = bundle.texts("category_names", categories);
      this.categories = Array.from({ length: categories }, (_, place) => nameAt(place));
      this.#categoryOf = bundle.packed("categories", Math.floor(Math.log2(categories)) + 1, items);
    }
  }

  /** The number (1..V) of the item with this id, 0 if there is none. 17 and "17" both find either of them. */
  find(raw) {
    const kind = typeof raw;
    expect(kind === "string" || kind === "number" || kind === "bigint", `an item id is a text or a number, not ${kind}`);
    if (kind === "bigint") raw = String(raw);
    const found = this.#find(raw);
    if (found) return found;
    if (typeof raw === "number") return this.#find(String(raw));
    return WHOLE_NUMBER.test(raw) ? this.#find(idOf(raw)) : 0;
  }

  #find(id) {
    if (this.#places) return this.#places.has(id) ? this.#places.get(id) + 1 : 0;
    return Number.isInteger(id) && id >= 1 && id <= this.size ? id : 0;
  }

  /** Id, title and category of an item. */
  describe(item) {
    const id = this.#idAt(item - 1);
    return { id, title: this.#titleAt(item - 1) || String(id), category: this.categories[this.category(item) - 1] ?? null };
  }

  /** 1..C, 0 where unknown. */
  category(item) {
    return this.#categoryOf ? this.#categoryOf[item - 1] : 0;
  }
}

/** A whole number as an id: a number where that is exact, else a text. */
function idOf(whole) {
  const number = Number(whole);
  return Number.isSafeInteger(number) ? number : String(whole);
}

/** The WebAssembly instance of one model. */
class Engine {
  #exports;
  #model;
  #state;
  #scratch = 0;
  #room = 0;

  constructor(exports, content) {
    this.#exports = exports;
    const [bytes, model, reason] = this.#places(content.length, 4, 256);
    this.#view(Uint8Array, bytes, content.length).set(content);
    const failed = this.#call("lsan_open", bytes, content.length, 0, model, reason, 256);
    const why = this.#view(Uint8Array, reason, 256);
    expect(!failed, new TextDecoder().decode(why.slice(0, why.indexOf(0))));
    this.#model = this.#view(Uint32Array, model, 1)[0];
    this.#call("free", this.#scratch);
    this.#room = 0;
    const [facts] = this.#places(64);
    this.#call("lsan_describe", facts, this.#model);
    [this.items, this.history, this.width] = this.#view(Uint32Array, facts, 3);
    [this.timed, this.causal, this.excludesSeen] = Array.from(this.#view(Uint8Array, facts + 16, 3), Boolean);
    this.#state = this.state(false);
  }

  /** A state of its own, for a session. */
  state(session) {
    const state = this.#call("lsan_state_new", this.#model, 16, session);
    expect(state, "there is not enough memory for the model's results");
    return state;
  }

  free(state) {
    if (this.#exports) this.#call("lsan_state_free", state);
  }

  /** The best items after a history, and their scores. */
  recommend(items, times, asked, k, excluded, allowed) {
    return this.#rank(this.#state, this.#encode(items, times, asked), k, excluded, allowed);
  }

  scores(items, times, asked) {
    const hidden = this.#encode(items, times, asked);
    const [scores] = this.#places(4 * this.items);
    this.#call("lsan_scores", this.#state, hidden, scores);
    return this.#view(Float32Array, scores, this.items);
  }

  cosines(item) {
    const [room, cosines] = this.#places(8 * this.width, 4 * this.items);
    this.#call("lsan_cosines", this.#model, item, room, cosines);
    return this.#view(Float32Array, cosines, this.items).slice();
  }

  append(session, item, time) {
    this.#call("lsan_append", session, item, BigInt(time));
  }

  recommendAfter(session, asked, k, excluded, allowed) {
    const [hidden] = this.#places(4);
    this.#call("lsan_session_hidden", session, BigInt(asked), hidden);
    return this.#rank(session, this.#view(Uint32Array, hidden, 1)[0], k, excluded, allowed);
  }

  close() {
    this.#exports = null;
  }

  /** Where the hidden vector of a history is; 0 for an empty one. */
  #encode(items, times, asked) {
    const [events, stamps, hidden] = this.#places(4 * items.length, 8 * times.length, 4);
    this.#view(Int32Array, events, items.length).set(items);
    const view = this.#view(BigInt64Array, stamps, times.length);
    times.forEach((time, i) => (view[i] = BigInt(time)));
    const known = times.length ? stamps : 0;
    this.#call("lsan_encode", this.#state, events, known, items.length, BigInt(asked), hidden);
    return this.#view(Uint32Array, hidden, 1)[0];
  }

  #rank(state, hidden, k, excluded, allowed) {
    k = Math.min(k, this.items);
    const left = excluded?.length ?? 0;
    expect(!this.#call("lsan_state_reserve", state, k), `there is not enough memory for ${k} items`);
    const [wishes, out, mask, best, scores] = this.#places(16, 4 * left, allowed?.length ?? 0, 4 * k, 4 * k);
    this.#view(Uint32Array, wishes, 4).set([out, left, allowed ? mask : 0, 0]);
    if (left) this.#view(Int32Array, out, left).set(excluded);
    if (allowed) this.#view(Uint8Array, mask, allowed.length).set(allowed);
    const found = this.#call("lsan_rank", state, hidden, k, wishes, best, scores);
    return [this.#view(Int32Array, best, found), this.#view(Float32Array, scores, found)];
  }

  /** Places for so many bytes each, until the next call. */
  #places(...sizes) {
    let end = 0;
    const places = sizes.map((size) => {
      const at = end;
      end += Math.ceil(size / 8) * 8;
      return at;
    });
    if (end > this.#room) {
      if (this.#room) this.#call("free", this.#scratch);
      this.#room = 0;
      this.#scratch = this.#call("malloc", end);
      expect(this.#scratch, `there is not enough memory for ${end} bytes`);
      this.#room = end;
    }
    return places.map((place) => this.#scratch + place);
  }

  #view(Kind, at, length) {
    return new Kind(this.#exports.memory.buffer, at, length);
  }

  #call(name, ...values) {
    expect(this.#exports, "this recommender is closed");
    try {
      return this.#exports[name](...values);
    } catch (error) {
      this.close(); // what a trap leaves behind is not to be trusted
      throw new LsanError(`the engine stopped in ${name} (${error.message}): the file is not what lsan export writes`, {
        cause: error,
      });
    }
  }
}

/** Milliseconds since 1970 of a Date or of seconds. */
function milliseconds(time) {
  const found = time instanceof Date ? time.getTime() : typeof time === "number" ? Math.floor(time * 1000) : NaN;
  expect(found >= 0 && found < 1000 * LATEST, `${time} is no time: expected a Date, or seconds since 1970, before 2200`);
  return found;
}

function list(values, what) {
  expect(values != null && typeof values !== "string" && values[Symbol.iterator], `${what} is a list`);
  return [...values];
}

function checked(k) {
  expect(Number.isInteger(k) && k >= 1, `k is a whole number of at least 1, not ${k}`);
  return k;
}

const fold = (text) => text.normalize("NFKD").replace(/\p{Mn}/gu, "").toLowerCase();
const wordsOf = (folded) => folded.match(/[\p{L}\p{N}]+/gu) ?? [];

/** A loaded file. `load` makes it. */
class Recommender {
  #engine;
  #vocabulary;
  #bundle;
  #offered = null;
  #counts = null; // training events of each item
  #phrases = null; // " word word" of each item's title, for search

  constructor(engine, bundle) {
    this.#engine = engine;
    this.#bundle = bundle;
    this.#vocabulary = new Vocabulary(bundle);
    if (bundle.has("offered")) this.#offered = bundle.packed("offered", 1, engine.items);
    const { timed, causal, items, history, width } = engine;
    const provenance = bundle.manifest.provenance ?? {};
    this.size = items;
    this.info = { items, history, width, timed, causal, categories: this.#vocabulary.categories, provenance };
    Object.freeze(this.info);
  }

  recommend(history, { k = 10, times, at, excludeSeen, filter } = {}) {
    const raw = list(history, "a history");
    const found = raw.map((id) => this.#find(id));
    const [events, stamps, asked] = this.#events(found, times, at);
    const excluded = (excludeSeen ?? this.#engine.excludesSeen) ? events : null;
    const best = this.#engine.recommend(events, stamps, asked, checked(k), excluded, this.#mask(filter));
    return this.#answer(best, raw, found);
  }

  session({ excludeSeen } = {}) {
    const engine = this.#engine;
    const state = engine.state(true);
    const excludes = excludeSeen ?? engine.excludesSeen;
    const raw = [];
    const found = [];
    const events = [];
    let last = -1;
    let open = true;
    const check = () => expect(open, "this session is closed");
    return {
      append: (id, at) => {
        check();
        const item = this.#find(id);
        const moment = at == null || !engine.timed ? -1 : milliseconds(at);
        raw.push(id);
        found.push(item);
        last = moment;
        if (item) {
          engine.append(state, item, moment);
          events.push(item);
        }
        return item > 0;
      },
      recommend: ({ k = 10, at, filter } = {}) => {
        check();
        const asked = at != null && engine.timed ? milliseconds(at) : last;
        const allowed = this.#mask(filter);
        return this.#answer(
          engine.recommendAfter(state, asked, checked(k), excludes ? events : null, allowed), raw, found,
        );
      },
      get length() {
        return events.length;
      },
      close: () => {
        if (open) engine.free(state);
        open = false;
      },
    };
  }

  similar(id, { k = 10 } = {}) {
    const item = this.#known(id);
    const cosines = this.#engine.cosines(item);
    const others = Array.from(cosines.keys()).filter((place) => place + 1 !== item && this.#isOffered(place + 1));
    others.sort((a, b) => cosines[b] - cosines[a] || a - b);
    return others
      .slice(0, checked(k))
      .map((place) => ({ ...this.#vocabulary.describe(place + 1), similarity: cosines[place] }));
  }

  explain(history, id, { times, at } = {}) {
    const item = this.#known(id);
    const found = list(history, "a history").map((raw) => this.#find(raw));
    const [events, stamps, asked] = this.#events(found, times, at);
    const whole = this.#margin(events, stamps, asked, item);
    return events.slice(-this.#engine.history).map((event, i, latest) => {
      const others = (_, n) => n !== events.length - latest.length + i;
      const { id, title } = this.#vocabulary.describe(event);
      const less = this.#margin(events.filter(others), stamps.filter(others), asked, item);
      return { id, title, contribution: whole - less };
    });
  }

  search(query, { k = 10 } = {}) {
    expect(typeof query === "string", "a query is a text");
    checked(k);
    this.#phrases ??= Array.from({ length: this.size }, (_, place) =>
      wordsOf(fold(this.#vocabulary.describe(place + 1).title)).map((word) => ` ${word}`).join(""),
    );
    this.#counts ??= this.#trainingEvents();
    const folded = fold(query);
    const start = folded.trim();
    const words = wordsOf(folded).map((word) => ` ${word}`);
    const phrase = words.join("");
    const found = [];
    for (let item = 1; item <= this.size; item++) {
      if (!this.#isOffered(item)) continue;
      const has = this.#phrases[item - 1];
      const { id, title } = this.#vocabulary.describe(item);
      let rank = words.every((word) => has.includes(word)) ? 2 : 3;
      if (phrase && has.startsWith(phrase) && fold(title).trim().startsWith(start)) rank = 1;
      if (fold(String(id)) === folded) rank = 0;
      if (rank < 3) found.push([rank, this.#counts[item - 1], item]);
    }
    found.sort((a, b) => a[0] - b[0] || b[1] - a[1] || a[2] - b[2]);
    return found.slice(0, k).map(([, , item]) => this.#vocabulary.describe(item));
  }

  popular(k = 10) {
    return this.recommend([], { k }).items;
  }

  item(id) {
    const item = this.#find(id);
    return item ? this.#vocabulary.describe(item) : null;
  }

  close() {
    this.#engine.close();
  }

  #isOffered(item) {
    return !this.#offered || this.#offered[item - 1] === 1;
  }

  #find(id) {
    const item = this.#vocabulary.find(id);
    return item && this.#isOffered(item) ? item : 0;
  }

  #known(id) {
    const item = this.#find(id);
    expect(item, `item ${id} is not in the model`);
    return item;
  }

  /** Items and times (none where the model reads none) of the events that are known, and when it is asked. */
  #events(found, times, at) {
    const moments = times == null ? null : list(times, "times");
    const length = moments?.length ?? found.length;
    expect(length === found.length, `${length} times for a history of ${found.length} events`);
    const known = found.filter(Boolean);
    if (!this.#engine.timed) return [known, [], -1];
    const asked = at == null ? null : milliseconds(at);
    const stamps = moments ? moments.map((time) => (time == null ? -1 : milliseconds(time))) : found.map(() => asked ?? -1);
    return [known, stamps.filter((_, i) => found[i]), asked ?? stamps.at(-1) ?? -1];
  }

  /** 1 for each item that may be recommended. */
  #mask(filter) {
    if (filter == null) return null;
    const mask = new Uint8Array(this.size).fill(1);
    const keep = (kept) => mask.forEach((_, place) => (mask[place] &= kept(place + 1)));
    const { allow, forbid, allowCategories, forbidCategories } = filter;
    const items = (ids) => new Set(list(ids, "a filter's ids").map((id) => this.#vocabulary.find(id)));
    const names = this.#vocabulary.categories;
    const numbers = (chosen) => new Set(list(chosen, "a filter's categories").map((name) => names.indexOf(name) + 1 || -1));
    if (allow != null) {
      const chosen = items(allow);
      keep((item) => chosen.has(item));
    }
    if (forbid != null) {
      const chosen = items(forbid);
      keep((item) => !chosen.has(item));
    }
    if (allowCategories != null) {
      const chosen = numbers(allowCategories);
      keep((item) => chosen.has(this.#vocabulary.category(item)));
    }
    if (forbidCategories != null) {
      const chosen = numbers(forbidCategories);
      keep((item) => !chosen.has(this.#vocabulary.category(item)));
    }
    return mask;
  }

  #answer([best, scores], raw, found) {
    const items = Array.from(best, (item, i) => ({ ...this.#vocabulary.describe(item), score: scores[i] }));
    const unknownIds = raw.filter((_, i) => !found[i]);
    return { items, unknownIds, byPopularity: unknownIds.length === raw.length };
  }

  /** An item's score less the mean score of the items that are offered. */
  #margin(events, stamps, asked, item) {
    const scores = this.#engine.scores(events, stamps, asked);
    let sum = 0;
    let count = 0;
    for (let place = 0; place < scores.length; place++) {
      if (!this.#isOffered(place + 1)) continue;
      sum += scores[place];
      count++;
    }
    return scores[item - 1] - sum / count;
  }

  #trainingEvents() {
    const { items, popular, popular_bits: bits } = this.#bundle.manifest;
    const listed = this.#bundle.packed("popularity.items", Math.floor(Math.log2(items)) + 1, popular);
    const counts = this.#bundle.packed("popularity.counts", bits, popular);
    const found = new Uint32Array(items);
    listed.forEach((item, i) => (found[item - 1] = counts[i]));
    return found;
  }
}
