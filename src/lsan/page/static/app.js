// Find items, make a history, see what comes next. Titles are untrusted: they are only ever set as text.
import { load } from "./lsan.js";

const SHOWN = 10;
const FOUND = 8;
const KEPT = `lsan history ${new URL(".", location)}`;
const ICONS = { up: "M12 19V5M5 12l7-7 7 7", down: "M12 5v14M5 12l7 7 7-7", remove: "M6 6l12 12M18 6L6 18" };

const $ = (id) => document.getElementById(id);
const field = $("search");
const list = $("found");

let model;
let history = []; // ids, oldest first
let found = []; // items in `list`
let active = 0; // its place that Enter takes
let changes = 0;

// Elements

function make(tag, name = "", ...children) {
  const element = document.createElement(tag);
  element.className = name;
  element.append(...children);
  return element;
}

function icon(path) {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  const line = document.createElementNS(svg.namespaceURI, "path");
  svg.setAttribute("viewBox", "0 0 24 24");
  line.setAttribute("d", path);
  svg.append(line);
  return svg;
}

/** The parts that show an item, and `show`, which fills them. */
function parts() {
  const [tile, title, category] = ["tile", "title", "category"].map((name) => make("span", name));
  title.dir = category.dir = "auto";
  tile.ariaHidden = "true";
  const show = (item) => {
    title.textContent = item.title;
    category.textContent = item.category ?? "";
    tile.textContent = item.title.match(/[\p{L}\p{N}]/u)?.[0].toUpperCase() ?? "";
    tile.style.setProperty("--hue", 137.5 * model.info.categories.indexOf(item.category));
  };
  return { tile, title, category, show };
}

const titleOf = (id) => model.item(id).title;

const grouped = (count) => String(count).replace(/\B(?=(...)+$)/g, ","); // toLocaleString begins slowly

function say(news) {
  $("news").textContent = news;
}

// Search: ARIA's combobox

function find() {
  found = model.search(field.value, { k: FOUND });
  list.replaceChildren(...found.map((item, place) => {
    const { tile, title, category, show } = parts();
    show(item);
    const option = make("li", "", tile, make("span", "words", title, category));
    return Object.assign(option, { id: `found-${place}`, role: "option", onclick: () => choose(place) });
  }));
  open(found.length > 0);
  const news = found.length ? "" : `Nothing found for “${field.value.trim()}”`;
  $("none").hidden = !news;
  $("none").textContent = news;
  say(news || `${found.length} found`);
}

function open(whether) {
  list.hidden = !whether;
  field.ariaExpanded = whether;
  if (whether) activate(0);
  else field.removeAttribute("aria-activedescendant");
}

function activate(place) {
  active = (place + found.length) % found.length;
  [...list.children].forEach((option, other) => (option.ariaSelected = other === active));
  list.children[active].scrollIntoView({ block: "nearest" });
  field.setAttribute("aria-activedescendant", `found-${active}`);
}

function choose(place) {
  leave();
  add(found[place].id);
}

function leave() {
  field.value = "";
  $("none").hidden = true;
  open(false);
}

function pressed(event) {
  const opened = !list.hidden;
  const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
  if (event.isComposing) return;
  if (step && opened) activate(active + step);
  else if (step) find();
  else if (event.key === "Enter" && opened) choose(active);
  else if (event.key === "Escape" && opened) open(false);
  else if (event.key === "Escape") leave();
  else return;
  event.preventDefault();
}

// The history

function add(id) {
  history.push(id);
  changed(`Added ${titleOf(id)}`);
  $("history").scrollTop = 1e9;
}

function move(place, by) {
  const to = place + by;
  if (to < 0 || to >= history.length) return;
  history.splice(to, 0, ...history.splice(place, 1));
  changed(`${titleOf(history[to])} is now number ${to + 1} of ${history.length}`);
  const row = $("history").children[to];
  (row.querySelector(by < 0 ? ".up:enabled" : ".down:enabled") ?? row.querySelector(":enabled")).focus();
}

function remove(place) {
  changed(`Removed ${titleOf(...history.splice(place, 1))}`);
  const rows = $("history").children;
  (rows[Math.min(place, rows.length - 1)]?.querySelector(".remove") ?? $("surprise")).focus();
}

function clear() {
  history = [];
  changed("Your history is empty");
  $("surprise").focus();
}

/** A popular item and two that may come after it. */
function surprise() {
  const any = (items) => items[Math.floor(Math.random() * items.length)].id;
  history = [any(model.popular(50))];
  while (history.length < 3) history.push(any([...next(4).items, model.item(history[0])]));
  changed(`Added ${history.map(titleOf).join(", ")}`);
  $("clear").focus();
}

function historyRow(id, place) {
  const { tile, title, category, show } = parts();
  show(model.item(id));
  const tool = (name, label, onclick, disabled) => {
    const button = make("button", name, icon(ICONS[name]));
    return Object.assign(button, { ariaLabel: label, title: label, onclick, disabled });
  };
  const row = make("li", "", tile, make("span", "words", title, category), make("span", "tools",
    tool("up", `Move ${titleOf(id)} up`, () => move(place, -1), place === 0),
    tool("down", `Move ${titleOf(id)} down`, () => move(place, 1), place === history.length - 1),
    tool("remove", `Remove ${titleOf(id)}`, () => remove(place))));
  row.onkeydown = (event) => {
    const step = event.altKey && { ArrowUp: -1, ArrowDown: 1 }[event.key];
    if (step) move(place, step);
    else if (event.key === "Delete") remove(place);
    else return;
    event.preventDefault();
  };
  return row;
}

function changed(news) {
  try {
    localStorage.setItem(KEPT, JSON.stringify(history));
  } catch {
    $("keeping").textContent = "This browser keeps nothing.";
  }
  update();
  say(news);
}

/** The history of the last visit, less what this model does not know. */
function remembered() {
  try {
    return JSON.parse(localStorage.getItem(KEPT)).filter((id) => model.item(id));
  } catch {
    return [];
  }
}

// Recommendations

const next = (k) => model.recommend(history, { k, at: Date.now() / 1000 });

const rows = Array.from({ length: SHOWN }, () => {
  const { tile, title, category, show } = parts();
  const [bar, number, because] = [make("div", "bar"), make("span", "number"), make("p", "because")];
  const button = make("button", "", make("span", "unseen", "Add "), title, category);
  const score = make("div", "score", make("div", "track", bar), number);
  return Object.assign(make("li", "", tile, make("div", "words", button, score, because)), {
    because,
    show(item, share, figure, explained) {
      show(item);
      bar.style.setProperty("--share", `${100 * share}%`);
      number.textContent = figure;
      because.replaceChildren();
      because.hidden = !explained;
      button.onclick = () => add(item.id);
    },
  });
});

/** Shows what comes next; then, once that is painted, why, and what it cost. */
async function update() {
  const change = (changes += 1);
  $("next").ariaBusy = true;
  $("history").replaceChildren(...history.map(historyRow));
  $("empty").hidden = history.length > 0;
  $("surprise").hidden = history.length > 0;
  $("clear").hidden = !history.length;

  const { items, byPopularity } = next(SHOWN);
  $("heading").textContent = byPopularity ? "Popular" : "Recommended next";
  $("hint").textContent = byPopularity
    ? "Your history is empty: these items have the most events."
    : "Choose one to add it. A bar half as long: half as likely, says the model.";
  rows.forEach((row, place) => {
    const item = items[place];
    row.hidden = !item;
    if (!item) return;
    const figure = byPopularity ? grouped(Math.round(Math.expm1(item.score))) : item.score.toFixed(2);
    row.show(item, Math.exp(item.score - items[0].score), figure, !byPopularity);
  });

  await painted();
  if (change === 1) performance.mark("recommended");
  for (const [place, { id }] of byPopularity ? [] : items.entries()) {
    if (change !== changes) return;
    rows[place].because.replaceChildren(...reasons(id));
    await pause();
  }
  if (change !== changes) return;
  $("next").ariaBusy = false;
  showTime();
}

/** What did most for a score, and what did at least half as much. */
function reasons(id) {
  const gains = new Map();
  for (const { title, contribution } of model.explain(history, id, { at: Date.now() / 1000 })) {
    gains.set(title, Math.max(contribution, gains.get(title) ?? 0));
  }
  const [first, second] = [...gains].sort((one, other) => other[1] - one[1]);
  if (!(first?.[1] > 0)) return [];
  const name = ([title]) => make("bdi", "", title);
  return ["because of ", name(first), ...(second?.[1] >= first[1] / 2 ? [" and ", name(second)] : [])];
}

const pause = () => new Promise((done) => setTimeout(done));
const painted = () => new Promise((done) => requestAnimationFrame(() => setTimeout(done)));

// What it cost

/** Browsers blur their clocks, so calls are timed many together. */
function showTime() {
  const timed = (calls) => {
    const begun = performance.now();
    for (let call = 0; call < calls; call += 1) next(SHOWN);
    return performance.now() - begun;
  };
  let calls = 1;
  while (timed(calls) < 4 && calls < 1024) calls *= 2;
  const times = Array.from({ length: 7 }, () => timed(calls) / calls).sort((one, other) => one - other);
  const time = times[3];
  $("time").textContent = time < 1 ? `${Math.round(time * 1000)}\u00a0µs` : `${time.toFixed(1)}\u00a0ms`;
  $("time-hint").textContent = `median of ${7 * calls} just now, on this device`;
}

function showBytes() {
  const files = [...performance.getEntriesByType("navigation"), ...performance.getEntriesByType("resource")];
  const sum = (measure) => files.reduce((total, file) => total + measure(file), 0);
  const downloaded = (file) => (file.workerStart ? 0 : file.transferSize);
  const all = sum(downloaded);
  const size = downloaded(files.find((file) => file.name.endsWith("model.lsan")));
  $("bytes").textContent = readable(all);
  $("bytes-hint").textContent = all
    ? `model ${readable(size)}, the rest ${readable(all - size)}`
    : `all ${readable(sum((file) => file.decodedBodySize))} were here already`;
}

const readable = (bytes) => (bytes < 1e6 ? `${Math.round(bytes / 1000)}\u00a0kB` : `${(bytes / 1e6).toFixed(1)}\u00a0MB`);

// Without a network

async function keepOffline() {
  const tell = (short, long) => {
    $("offline").textContent = short;
    $("offline-hint").textContent = long;
  };
  const workers = navigator.serviceWorker;
  try {
    if (!workers) throw new Error("only for pages of https:// and localhost");
    if (workers.controller) workers.oncontrollerchange = () => ($("newer").hidden = false);
    const registration = await workers.register("sw.js");
    const settle = () => {
      registration.waiting?.postMessage("take over"); // this page has all that it needs
      if (!(registration.installing ?? registration.waiting ?? registration.active)) tell("no", "its files cannot be kept");
    };
    registration.onupdatefound = () => (registration.installing.onstatechange = settle);
    settle();
    if (workers.controller) registration.update().catch(() => {}); // there may be no network
    await workers.ready;
    tell("ready", "this page is on your device now");
  } catch (error) {
    tell("no", error.message);
  }
}

function fail(error) {
  const texts = [error.message, "If loading again does not help, its files are damaged: make them again with lsan page."];
  $("notice").replaceChildren(make("h2", "", "The model cannot be used"), ...texts.map((text) => make("p", "", text)));
  $("notice").hidden = false;
  $("notice").style.animation = "none";
  $("columns").hidden = true;
}

async function start() {
  $("notice").hidden = true;
  try {
    model = await load("model.lsan", { wasm: "lsan.wasm" });
  } catch (error) {
    return fail(error);
  } finally {
    keepOffline();
  }
  $("next").append(...rows);
  history = remembered();
  field.placeholder = `Search ${grouped(model.size)} items`;
  field.oninput = () => (field.value.trim() ? find() : leave());
  field.onkeydown = pressed;
  field.onblur = () => open(false);
  list.onmousedown = (event) => event.preventDefault(); // the field keeps the focus
  $("surprise").onclick = surprise;
  $("clear").onclick = clear;
  $("reload").onclick = () => location.reload();
  field.disabled = $("surprise").disabled = false;
  update();
  showBytes();
}

start();
