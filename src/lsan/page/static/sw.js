// Keeps the page for use without a network. VERSION and FILES (name to hash) stand above: another model or program is
// another VERSION, all of whose files are fetched and checked before they replace the earlier ones.

const SCOPE = registration.scope;
const OURS = `lsan ${SCOPE} `; // an origin may have several pages
const CACHE = OURS + VERSION;

addEventListener("install", (event) => event.waitUntil(fetchAll()));
addEventListener("activate", (event) => event.waitUntil(deleteEarlier()));

// Said by a page that has loaded all it needs.
addEventListener("message", (event) => {
  if (event.data === "take over") skipWaiting();
});

addEventListener("fetch", (event) => {
  const { method, url } = event.request;
  const name = url.startsWith(SCOPE) && url.slice(SCOPE.length).replace(/[?#].*/, "").replace(/^(index\.html)?$/, "./");
  if (method === "GET" && Object.hasOwn(FILES, name)) event.respondWith(answer(event.request, name));
});

async function fetchAll() {
  const cache = await caches.open(CACHE);
  await Promise.all(Object.entries(FILES).map(async ([name, integrity]) => {
    const response = await fetch(name, { cache: "no-cache", integrity });
    if (!response.ok) throw new Error(`${name}: ${response.status}`);
    await cache.put(name, response);
  }));
}

async function deleteEarlier() {
  const names = await caches.keys();
  await Promise.all(names.filter((name) => name.startsWith(OURS) && name !== CACHE).map((name) => caches.delete(name)));
}

async function answer(request, name) {
  const cache = await caches.open(CACHE);
  return (await cache.match(name)) ?? fetch(request);
}
