/**
 * Recommendations from a .lsan file, in pages, workers and Node. lsan.d.ts has the types, lsan.wasm the engine:
 * the same C as in Python. Nothing leaves the device.
 */

/** What is wrong with a file or a call. */
export class LsanError extends Error {
  name = "LsanError";
}

export async function load(source, { wasm = new URL("./lsan.wasm", import.meta.url), onProgress } = {}) {
  const [module, content] = await Promise.all([moduleOf(wasm), bytesOf(source, onProgress)]);
  const { exports } = await WebAssembly.instantiate(module, {});
  return new Recommender(new Engine(exports, content), new Bundle(content));
}

function expect(truth, message) {
  if (!truth) throw new LsanError(message);
}

const areBytes = (source) => source instanceof ArrayBuffer || ArrayBuffer.isView(source);

async function moduleOf(wasm) {
  if (wasm instanceof WebAssembly.Module) return wasm;
  const found = areBytes(wasm) ? wasm : await opened(wasm);
  if (areBytes(found)) return WebAssembly.compile(found);
  const streams = found.headers.get("content-type")?.startsWith("application/wasm"); // else it would be refused
  return streams ? WebAssembly.compileStreaming(found) : WebAssembly.compile(await found.arrayBuffer());
}

async function bytesOf(source, onProgress) {
  let found = areBytes(source) ? source : await opened(source);
  if (onProgress && found.body) found = await streamed(found, onProgress);
  else {
    if (found.arrayBuffer) found = await found.arrayBuffer();
    onProgress?.(found.byteLength, found.byteLength);
  }
  return new Uint8Array(found.buffer ?? found, found.byteOffset ?? 0, found.byteLength);
}

/** A response, or the bytes of a file in Node. */
async function opened(source) {
  const isResponse = typeof source?.arrayBuffer === "function"; // or a Blob
  expect(typeof source === "string" || source instanceof URL || isResponse, "load takes an address, a Response or bytes");
  const name = isResponse ? (source.url ?? "the file") : String(source);
  try {
    if (!isResponse && isFile(name)) return await fileOf(name);
    const found = isResponse ? source : await fetch(source);
    expect(found.ok !== false, `status ${found.status}`);
    return found;
  } catch (error) {
    throw new LsanError(`${name} cannot be read: ${error.message}`, { cause: error });
  }
}

const isFile = (name) =>
  globalThis.process?.versions?.node && !globalThis.document && (/^file:/i.test(name) || !/^[a-z][a-z\d+.-]+:/i.test(name));

async function fileOf(name) {
  const files = "node:fs/promises"; // a variable, so that bundlers let it be
  const { readFile } = await import(/* webpackIgnore: true */ /* @vite-ignore */ files);
  return readFile(/^file:/i.test(name) ? new URL(name) : name);
}

async function streamed(response, onProgress) {
  const total = response.headers.has("content-encoding") ? 0 : Number(response.headers.get("content-length"));
  const pieces = [];
  let length = 0;
  for (const reader = response.body.getReader(); ; ) {
    const { done, value } = await reader.read();
    if (done) break;
    pieces.push(value);
    onProgress((length += value.length), total || null);
  }
  const content = new Uint8Array(length);
  for (const piece of pieces.reverse()) content.set(piece, (length -= piece.length));
  return content;
}

/** Tensors by name, and the manifest. The engine has read the same bytes before and refused what is no bundle. */
class Bundle {
  #tensors = new Map();

  constructor(content) {
    const size = Number(new DataView(content.buffer, content.byteOffset).getBigUint64(0, true));
    const parse = (bytes) => JSON.parse(new TextDecoder().decode(bytes));
    const { __metadata__, ...tensors } = parse(content.subarray(8, 8 + size));
    for (const [name, { dtype, data_offsets: ends }] of Object.entries(tensors)) {
      this.#tensors.set(name, { dtype, bytes: content.subarray(8 + size + ends[0], 8 + size + ends[1]) });
    }
    this.manifest = parse(this.tensor("manifest", "U8"));
  }

  has(name) {
    return this.#tensors.has(name);
  }

  /** A copy of the bytes; `length` is how many, where that is known. */
  tensor(name, dtype, length) {
    const found = this.#tensors.get(name);
    expect(found?.dtype === dtype, `there is no tensor ${name} of type ${dtype}`);
    expect(length === undefined || found.bytes.length === length, `${name} has not the length that it should have`);
    return found.bytes.slice();
  }

  /** Packed whole numbers, the highest bit first, as a function of their place. */
  packed(name, bits, count) {
    const bytes = this.tensor(name, "U8", Math.ceil((count * bits) / 8));
    return (place) => {
      let number = 0;
      for (let bit = place * bits; bit < (place + 1) * bits; bit++) {
        number = number * 2 + ((bytes[Math.floor(bit / 8)] >> (7 - (bit % 8))) & 1);
      }
      return number;
    };
  }

  /** Texts of UTF-8 bytes, as a function of their place. */
  texts(name, count) {
    const bytes = this.tensor(`${name}.bytes`, "U8");
    const words = new Uint32Array(this.tensor(`${name}.ends`, "I64", 8 * count).buffer); // low and high halves
    const ends = new Uint32Array(count); // in UTF-16 units
    let text;
    try {
      text = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes);
    } catch {
      throw new LsanError(`${name}.bytes is not UTF-8`);
    }
    const continues = (at) => (bytes[at] & 0xc0) === 0x80;
    for (let i = 0, at = 0, units = 0; i < count; i++) {
      const end = words[2 * i];
      expect(!words[2 * i + 1] && end >= at && end <= bytes.length, `${name}.ends is not increasing or too large`);
      for (; at < end; at++) units += bytes[at] >= 0xf0 ? 2 : continues(at) ? 0 : 1;
      expect(!continues(at), `${name}.ends cuts a character in two`);
      ends[i] = units;
    }
    expect(text.length === (count ? ends[count - 1] : 0), `${name}.ends does not reach the end of ${name}.bytes`);
    return (place) => text.slice(place ? ends[place - 1] : 0, ends[place]);
  }
}

/** Whole numbers are numbers where those are exact, else texts. */
function idOf(whole) {
  const number = Number(whole);
  return Number.isSafeInteger(number) ? number : String(whole);
}

/** Raw ids, titles and categories of the items 1..V. */
class Vocabulary {
  #idAt = (place) => place + 1;
  #titleAt = () => "";
  #items = null; // by id; null where the ids are 1..V
  #categoryAt = () => 0; // 1..C, 0 where unknown
  categories = [];

  constructor(bundle) {
    const { items, categories } = bundle.manifest;
    this.size = items;
    if (bundle.has("ids.numbers")) {
      const { buffer } = bundle.tensor("ids.numbers", "I64", 8 * items);
      const [whole, halves] = [new BigInt64Array(buffer), new Int32Array(buffer)]; // the halves are faster
      this.#idAt = (place) => {
        const number = halves[2 * place + 1] * 2 ** 32 + (halves[2 * place] >>> 0);
        return Number.isSafeInteger(number) ? number : String(whole[place]);
      };
    } else if (bundle.has("ids.bytes")) {
      this.#idAt = bundle.texts("ids", items);
    }
    if (bundle.has("ids.numbers") || bundle.has("ids.bytes")) {
      this.#items = new Map();
      for (let place = 0; place < items; place++) this.#items.set(this.#idAt(place), place + 1);
      expect(this.#items.size === items, "two items have the same id");
    }
    if (bundle.has("titles.bytes")) this.#titleAt = bundle.texts("titles", items);
    if (categories) {
      const nameAt = bundle.texts("category_names", categories); // so many only where the file has their names
      this.categories = Array.from({ length: categories }, (_, place) => nameAt(place));
      this.#categoryAt = bundle.packed("categories", bitsOf(categories), items);
    }
  }

  /** The item (1..V) with this id, 0 if there is none. 17 and "17" both find either of them. */
  find(raw) {
    expect(["string", "number", "bigint"].includes(typeof raw), `an item id is a text or a number, not ${typeof raw}`);
    const found = this.#find(typeof raw === "bigint" ? idOf(raw) : raw);
    if (found || typeof raw !== "string") return found || this.#find(String(raw));
    return /^(0|-?[1-9]\d{0,18})$/.test(raw) ? this.#find(idOf(raw)) : 0;
  }

  #find(id) {
    if (this.#items) return this.#items.get(id) ?? 0;
    return Number.isInteger(id) && id >= 1 && id <= this.size ? id : 0;
  }

  id(item) {
    return this.#idAt(item - 1);
  }

  title(item) {
    return this.#titleAt(item - 1) || String(this.id(item));
  }

  category(item) {
    return this.#categoryAt(item - 1);
  }

  describe(item) {
    return { id: this.id(item), title: this.title(item), category: this.categories[this.category(item) - 1] ?? null };
  }
}

const bitsOf = (number) => 32 - Math.clz32(number);

/** The instance of lsan.wasm for one file; lsan.h tells what its functions do. */
class Engine {
  #exports;
  #model;
  #state;
  #scratch = 0;
  #room = 0;

  constructor(exports, content) {
    this.#exports = exports;
    const [bytes, model, reason, facts] = this.#places(content.length, 4, 256, 64);
    this.#view(Uint8Array, bytes, content.length).set(content);
    const failed = this.#call("lsan_open", bytes, content.length, 0, model, reason, 256);
    const why = this.#view(Uint8Array, reason, 256);
    expect(!failed, new TextDecoder().decode(why.slice(0, why.indexOf(0))));
    [this.#model] = this.#view(Uint32Array, model, 1);
    this.#call("lsan_describe", facts, this.#model);
    [this.items, this.history, this.width] = this.#view(Uint32Array, facts, 3);
    [this.timed, this.causal, this.excludesSeen] = Array.from(this.#view(Uint8Array, facts + 16, 3), Boolean);
    this.#call("free", this.#scratch);
    this.#room = 0;
    this.#state = this.state(false);
  }

  state(isSession) {
    const state = this.#call("lsan_state_new", this.#model, 10, isSession);
    expect(state, "there is not enough memory for what the model computes");
    return state;
  }

  free(state) {
    if (this.#exports) this.#call("lsan_state_free", state);
  }

  close() {
    this.#exports = null;
  }

  /** The best items, and their scores. */
  recommend(items, times, asked, k, excluded, allowed) {
    return this.#rank(this.#state, this.#encode(items, times, asked), k, excluded, allowed);
  }

  append(session, item, time) {
    this.#call("lsan_append", session, item, BigInt(time));
  }

  recommendAfter(session, asked, k, excluded, allowed) {
    const [hidden] = this.#places(4);
    this.#call("lsan_session_hidden", session, BigInt(asked), hidden);
    return this.#rank(session, this.#view(Uint32Array, hidden, 1)[0], k, excluded, allowed);
  }

  /** Of all items; to be read before the next call. */
  scores(items, times, asked) {
    const hidden = this.#encode(items, times, asked);
    const [scores] = this.#places(4 * this.items);
    this.#call("lsan_scores", this.#state, hidden, scores);
    return this.#view(Float32Array, scores, this.items);
  }

  cosines(item) {
    const [cosines] = this.#places(4 * this.items);
    expect(!this.#call("lsan_cosines", this.#model, item, cosines), "there is not enough memory");
    return this.#view(Float32Array, cosines, this.items);
  }

  /** Where the hidden vector of a history is; 0 for an empty one. */
  #encode(items, times, asked) {
    const [events, moments, hidden] = this.#places(4 * items.length, 8 * times.length, 4);
    this.#view(Int32Array, events, items.length).set(items);
    this.#view(BigInt64Array, moments, times.length).set(times.map(BigInt));
    this.#call("lsan_encode", this.#state, events, times.length && moments, items.length, BigInt(asked), hidden);
    return this.#view(Uint32Array, hidden, 1)[0];
  }

  #rank(state, hidden, k, excluded, allowed) {
    k = Math.min(k, this.items);
    expect(!this.#call("lsan_state_reserve", state, k), `there is not enough memory for ${k} items`);
    const [wishes, out, mask, best, scores] = this.#places(16, 4 * excluded.length, allowed?.length ?? 0, 4 * k, 4 * k);
    this.#view(Uint32Array, wishes, 4).set([out, excluded.length, allowed ? mask : 0, 0]);
    this.#view(Int32Array, out, excluded.length).set(excluded);
    if (allowed) this.#view(Uint8Array, mask, allowed.length).set(allowed);
    const found = this.#call("lsan_rank", state, hidden, k, wishes, best, scores);
    return [this.#view(Int32Array, best, found), this.#view(Float32Array, scores, found)];
  }

  /** Places of so many bytes each, until the next call. */
  #places(...sizes) {
    let end = 0;
    const places = sizes.map((size) => (end += Math.ceil(size / 8) * 8) - Math.ceil(size / 8) * 8);
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
    return new Kind(this.#open.memory.buffer, at, length);
  }

  get #open() {
    expect(this.#exports, "this recommender is closed");
    return this.#exports;
  }

  #call(name, ...values) {
    const exports = this.#open;
    try {
      return exports[name](...values);
    } catch (error) {
      // what a trap leaves behind is not to be trusted
      this.close();
      throw new LsanError(`${name} failed: ${error.message}`, { cause: error });
    }
  }
}

/** Since 1970, of a Date or of seconds. */
function milliseconds(time) {
  const found = time instanceof Date ? time.getTime() : typeof time === "number" ? Math.floor(time * 1000) : NaN;
  expect(found >= 0 && found < 7_258_118_400_000, `${time} is not a time: a Date or seconds since 1970, before 2200`);
  return found;
}

function list(values, what) {
  expect(typeof values !== "string" && values?.[Symbol.iterator], `${what} is a list`);
  return [...values];
}

function checked(k) {
  expect(Number.isInteger(k) && k >= 1, `k is a whole number, 1 or more, not ${k}`);
  return k;
}

const isAscii = (text) => /^[\0-\x7f]*$/.test(text);
const fold = (text) => (isAscii(text) ? text : text.normalize("NFKD").replace(/\p{Mn}/gu, "")).toLowerCase();
const wordsOf = (text) => (fold(text).match(/[\p{L}\p{N}]+/gu) ?? []).map((word) => ` ${word}`);

class Recommender {
  #engine;
  #bundle;
  #vocabulary;
  #offeredAt = () => 1;
  #phrases; // the words of each item's title, and how often it was in training; made by the first search
  #counts;

  constructor(engine, bundle) {
    this.#engine = engine;
    this.#bundle = bundle;
    this.#vocabulary = new Vocabulary(bundle);
    if (bundle.has("offered")) this.#offeredAt = bundle.packed("offered", 1, engine.items);
    const { items, history, width, timed, causal } = engine;
    this.size = items;
    const { provenance = {} } = bundle.manifest;
    this.info = Object.freeze({ items, history, width, timed, causal, categories: this.#vocabulary.categories, provenance });
  }

  recommend(history, { k = 10, times, at, excludeSeen, filter } = {}) {
    checked(k);
    const ids = list(history, "a history");
    const items = ids.map((id) => this.#find(id));
    const question = this.#question(items, times, at);
    const excluded = (excludeSeen ?? this.#engine.excludesSeen) ? question[0] : [];
    const best = this.#engine.recommend(...question, k, excluded, this.#mask(filter));
    return this.#answer(best, ids, items);
  }

  session({ excludeSeen } = {}) {
    const engine = this.#engine;
    const excludes = excludeSeen ?? engine.excludesSeen;
    const ids = [];
    const items = [];
    let state = engine.state(true);
    let last = -1;
    return {
      append: (id, at) => {
        expect(state, "this session is closed");
        const item = this.#find(id);
        last = at == null || !engine.timed ? -1 : milliseconds(at);
        ids.push(id);
        items.push(item);
        if (item) engine.append(state, item, last);
        return item > 0;
      },
      recommend: ({ k = 10, at, filter } = {}) => {
        expect(state, "this session is closed");
        const asked = at == null || !engine.timed ? last : milliseconds(at);
        const excluded = excludes ? items : [];
        return this.#answer(engine.recommendAfter(state, asked, checked(k), excluded, this.#mask(filter)), ids, items);
      },
      get length() {
        return items.filter(Boolean).length;
      },
      close: () => {
        if (state) engine.free(state);
        state = 0;
      },
    };
  }

  similar(id, { k = 10 } = {}) {
    const item = this.#known(id);
    const cosines = this.#engine.cosines(item);
    const others = this.#allOffered().filter((other) => other !== item);
    others.sort((a, b) => cosines[b - 1] - cosines[a - 1]);
    return others
      .slice(0, checked(k))
      .map((other) => ({ ...this.#vocabulary.describe(other), similarity: cosines[other - 1] }));
  }

  explain(history, id, { times, at } = {}) {
    const item = this.#known(id);
    const [events, moments, asked] = this.#question(
      list(history, "a history").map((event) => this.#find(event)), times, at,
    );
    const offered = this.#allOffered();
    const margin = (without) => {
      const others = (_, place) => place !== without;
      const scores = this.#engine.scores(events.filter(others), moments.filter(others), asked);
      return scores[item - 1] - offered.reduce((sum, other) => sum + scores[other - 1], 0) / offered.length;
    };
    const whole = margin(-1);
    const first = Math.max(0, events.length - this.#engine.history);
    return events.slice(first).map((event, i) => {
      const { id, title } = this.#vocabulary.describe(event);
      return { id, title, contribution: whole - margin(first + i) };
    });
  }

  search(query, { k = 10 } = {}) {
    expect(typeof query === "string", "a query is a text");
    checked(k);
    const vocabulary = this.#vocabulary;
    this.#counts ??= this.#trainingEvents();
    this.#phrases ??= Array.from({ length: this.size }, (_, place) => wordsOf(vocabulary.title(place + 1)).join(""));
    const folded = fold(query);
    const start = folded.trim();
    const words = wordsOf(query);
    const phrase = words.join("");
    const rank = (item) => {
      const has = this.#phrases[item - 1];
      if (fold(String(vocabulary.id(item))) === folded) return 0;
      if (!words.every((word) => has.includes(word))) return 3;
      return phrase && has.startsWith(phrase) && fold(vocabulary.title(item)).trim().startsWith(start) ? 1 : 2;
    };
    const found = this.#allOffered().map((item) => [rank(item), this.#counts[item - 1], item]);
    return found
      .filter(([rank]) => rank < 3)
      .sort((a, b) => a[0] - b[0] || b[1] - a[1] || a[2] - b[2])
      .slice(0, k)
      .map(([, , item]) => vocabulary.describe(item));
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
    return this.#offeredAt(item - 1) === 1;
  }

  #allOffered() {
    return Array.from({ length: this.size }, (_, place) => place + 1).filter((item) => this.#isOffered(item));
  }

  /** The item with this id, 0 where it is unknown or not offered. */
  #find(id) {
    const item = this.#vocabulary.find(id);
    return item && this.#isOffered(item) ? item : 0;
  }

  #known(id) {
    const item = this.#find(id);
    expect(item, `item ${id} is not in the model`);
    return item;
  }

  /** Events of known items, their times (none where the model reads none), and when it is asked. */
  #question(items, times, at) {
    const given = times == null ? null : list(times, "times");
    expect(!given || given.length === items.length, `${given?.length} times for a history of ${items.length} events`);
    const events = items.filter(Boolean);
    if (!this.#engine.timed) return [events, [], -1];
    const moment = (time) => (time == null ? -1 : milliseconds(time));
    const moments = given ? given.map(moment) : items.map(() => moment(at));
    return [events, moments.filter((_, place) => items[place]), at == null ? (moments.at(-1) ?? -1) : moment(at)];
  }

  /** 1 for each item that may be recommended. */
  #mask(filter) {
    if (filter == null) return null;
    const mask = new Uint8Array(this.size).fill(1);
    const keep = (name, kept, numberOf, mine) => {
      if (filter[name] == null) return;
      const chosen = new Set(list(filter[name], `filter.${name}`).map(numberOf));
      mask.forEach((_, place) => (mask[place] &= chosen.has(mine(place + 1)) === kept));
    };
    const vocabulary = this.#vocabulary;
    const ids = [(id) => vocabulary.find(id), (item) => item];
    const categories = [(name) => vocabulary.categories.indexOf(name) + 1 || -1, (item) => vocabulary.category(item)];
    keep("allow", true, ...ids);
    keep("forbid", false, ...ids);
    keep("allowCategories", true, ...categories);
    keep("forbidCategories", false, ...categories);
    return mask;
  }

  #answer([best, scores], ids, items) {
    const unknownIds = ids.filter((_, place) => !items[place]);
    return {
      items: Array.from(best, (item, i) => ({ ...this.#vocabulary.describe(item), score: scores[i] })),
      unknownIds,
      byPopularity: unknownIds.length === ids.length,
    };
  }

  #trainingEvents() {
    const { items, popular, popular_bits: bits } = this.#bundle.manifest;
    const countAt = this.#bundle.packed("popularity.counts", bits, popular);
    const itemAt = this.#bundle.packed("popularity.items", bitsOf(items), popular);
    const found = new Uint32Array(items);
    for (let place = 0; place < popular; place++) found[itemAt(place) - 1] = countAt(place);
    return found;
  }
}
