/** A raw item id. Whole numbers beyond 2^53 are given as texts. 17 and "17" name the same item. */
export type ItemId = string | number;

/** An array, a set or the like, but not a text. */
export type List<T> = Iterable<T> & object;

/** A point in time: a Date, or seconds since 1970 UTC. */
export type Time = Date | number;

export interface Item {
  id: ItemId;
  /** The raw id as a text where the item has no title. */
  title: string;
  /** null where unknown. */
  category: string | null;
}

export interface Recommendation extends Item {
  /** The model's score: larger is better, comparable within one answer. */
  score: number;
}

export interface SimilarItem extends Item {
  /** Cosine of the two items' vectors, -1 to 1. */
  similarity: number;
}

export interface Explanation {
  id: ItemId;
  title: string;
  /** The item's score after the whole history less that after the history without this event, both less the mean of all. */
  contribution: number;
}

export interface Recommendations {
  /** Best first; fewer than k where the catalogue has no more. */
  items: Recommendation[];
  /** Ids of the history that the model does not know; they were skipped. */
  unknownIds: (ItemId | bigint)[];
  /** True when no id of the history was known, so that the most popular items are given. */
  byPopularity: boolean;
}

/** What may be recommended. An item has to pass all that is given; what the model does not know allows and forbids nothing. */
export interface Filter {
  allow?: List<ItemId | bigint> | null;
  forbid?: List<ItemId | bigint> | null;
  allowCategories?: List<string> | null;
  forbidCategories?: List<string> | null;
}

export interface LoadOptions {
  /** lsan.wasm: its address, its bytes, or the compiled module. By default the file beside lsan.js. */
  wasm?: URL | string | BufferSource | WebAssembly.Module;
  /** Called as bytes of the file arrive; `total` is null where the server does not tell. */
  onProgress?: (bytes: number, total: number | null) => void;
}

export interface RecommendOptions {
  /** How many; 10 unless given. */
  k?: number;
  /** When each event of the history happened, null where unknown. */
  times?: List<Time | null | undefined> | null;
  /** When the recommendation is asked for: by default the time of the last event. Without `times` all events were then. */
  at?: Time | null;
  /** Leave out the items of the history; the file says what is the default. */
  excludeSeen?: boolean | null;
  filter?: Filter | null;
}

/** A history that grows. Holds memory until it, or its recommender, is closed. */
export interface Session {
  /** One more event, and when it happened. False when the model does not know the item, which is then skipped. */
  append(id: ItemId | bigint, at?: Time | null): boolean;
  recommend(options?: { k?: number; at?: Time | null; filter?: Filter | null }): Recommendations;
  /** Events so far, of items that the model knows. */
  readonly length: number;
  close(): void;
}

export interface Info {
  readonly items: number;
  /** Latest events that the model reads. */
  readonly history: number;
  /** Of the item table's vectors. */
  readonly width: number;
  /** Whether the model reads times. */
  readonly timed: boolean;
  /** Whether a session computes new events alone. */
  readonly causal: boolean;
  readonly categories: readonly string[];
  /** What the file says of itself: versions, data, recipe, metrics. */
  readonly provenance: Readonly<Record<string, unknown>>;
}

/** All methods throw LsanError when they are called wrongly. */
export interface Recommender {
  readonly size: number;
  readonly info: Info;
  /** The best next items after a history of raw ids, oldest first. */
  recommend(history: List<ItemId | bigint>, options?: RecommendOptions): Recommendations;
  session(options?: { excludeSeen?: boolean | null }): Session;
  /** The items whose vectors point most nearly the same way. */
  similar(id: ItemId | bigint, options?: { k?: number }): SimilarItem[];
  /** What each event did for the score of an item, oldest first: exact, by leaving each out in turn. */
  explain(
    history: List<ItemId | bigint>,
    id: ItemId | bigint,
    options?: { times?: List<Time | null | undefined> | null; at?: Time | null },
  ): Explanation[];
  /** Items whose titles have words that begin with those of the query, accents and capitals aside; more popular ones first. */
  search(query: string, options?: { k?: number }): Item[];
  /** null where the model does not know it. */
  item(id: ItemId | bigint): Item | null;
  /** The most popular items. */
  popular(k?: number): Recommendation[];
  /** Frees the memory. */
  close(): void;
}

/** What is wrong with a file or a call, and what was expected. */
export class LsanError extends Error {}

/**
 * Loads a .lsan file: from an address, a response, a blob, bytes, or in Node from a path.
 * Throws LsanError when it cannot be read or is not what `lsan export` writes.
 */
export function load(
  source: string | URL | Response | Blob | ArrayBuffer | ArrayBufferView,
  options?: LoadOptions,
): Promise<Recommender>;
