// What only JavaScript can show of lsan.js: where files come from, what is freed, what a broken engine does.
// test_module.py runs it with the name of a .lsan file in LSAN_FILE.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { createServer } from "node:http";
import { after, before, test } from "node:test";
import { pathToFileURL } from "node:url";
import { load, LsanError } from "../../src/lsan/javascript/lsan.js";

const path = process.env.LSAN_FILE;
const content = readFileSync(path);
const engine = readFileSync(new URL("../../src/lsan/javascript/lsan.wasm", import.meta.url));
const history = ["SKU-5", "SKU-7"];
let expected, server, address;

const same = (recommender) => assert.deepEqual(recommender.recommend(history), expected);

before(async () => {
  expected = (await load(path)).recommend(history);
  server = createServer((request, response) => {
    const found = { "/model.lsan": content, "/lsan.wasm": engine, "/plain.wasm": engine }[request.url];
    const types = { "/lsan.wasm": "application/wasm", "/plain.wasm": "text/plain" };
    response.writeHead(found ? 200 : 404, { "content-type": types[request.url] ?? "", "content-length": found?.length ?? 0 });
    response.end(found);
  });
  await new Promise((ready) => server.listen(0, "127.0.0.1", ready));
  address = `http://127.0.0.1:${server.address().port}`;
});

after(() => server.close());

test("a file comes from a path, an address, a response or bytes", async () => {
  assert.equal(expected.items.length, 10);
  const apart = new Uint8Array(content.length + 9);
  apart.set(content, 7);
  for (const source of [
    pathToFileURL(path),
    pathToFileURL(path).href,
    `${address}/model.lsan`,
    new URL("/model.lsan", address),
    await fetch(`${address}/model.lsan`),
    new Blob([content]),
    content,
    new Uint8Array(content),
    new Uint8Array(content).buffer,
    new DataView(apart.buffer, 7, content.length),
  ]) {
    same(await load(source));
  }
});

test("the engine comes from an address, whatever type its server names, from bytes, or compiled", async () => {
  for (const wasm of [`${address}/lsan.wasm`, new URL("/plain.wasm", address), engine, await WebAssembly.compile(engine)]) {
    same(await load(path, { wasm }));
  }
});

test("progress is told", async () => {
  for (const source of [path, `${address}/model.lsan`, new Blob([content])]) {
    const told = [];
    same(await load(source, { onProgress: (...numbers) => told.push(numbers) }));
    assert.deepEqual(told.at(-1), [content.length, content.length]);
    assert.ok(told.every(([bytes], i) => bytes > (told[i - 1]?.[0] ?? 0)));
  }
});

test("what cannot be read is an LsanError that names it", async () => {
  for (const [source, message] of [
    [`${address}/nothing.lsan`, /nothing.lsan cannot be read: status 404/],
    [`${path}.nothing`, /nothing cannot be read/],
    ["http://127.0.0.1:1/model.lsan", /model.lsan cannot be read/],
    [undefined, /an address, a Response or bytes/],
    [new Uint8Array(0), /too short/],
    [content.subarray(0, 5000), /./],
    [engine, /./],
  ]) {
    await assert.rejects(load(source), (error) => error instanceof LsanError && message.test(error.message));
  }
  await assert.rejects(load(path, { wasm: `${address}/nothing.wasm` }), /nothing.wasm cannot be read: status 404/);
});

test("after close nothing is answered", async () => {
  const recommender = await load(path);
  const session = recommender.session();
  session.append("SKU-5");
  assert.equal(session.length, 1);
  session.close();
  session.close();
  for (const call of [() => session.append("SKU-5"), () => session.recommend()]) {
    assert.throws(call, new LsanError("this session is closed"));
  }
  const other = recommender.session();
  recommender.recommend(history); // so that there is room for what the next call reads
  recommender.close();
  for (const call of [() => recommender.recommend(history), () => other.recommend(), () => recommender.session()]) {
    assert.throws(call, new LsanError("this recommender is closed"));
  }
  other.close();
});

test("sessions that are closed leave nothing behind", async () => {
  const instantiate = WebAssembly.instantiate;
  let memory;
  WebAssembly.instantiate = async (...values) => {
    const instance = await instantiate(...values);
    memory = instance.exports.memory;
    return instance;
  };
  const recommender = await load(path);
  WebAssembly.instantiate = instantiate;
  const use = () => {
    const sessions = Array.from({ length: 20 }, () => recommender.session());
    for (const session of sessions) history.forEach((id) => session.append(id));
    const answers = sessions.map((session) => session.recommend({ k: 100 }));
    sessions.forEach((session) => session.close());
    return answers[7];
  };
  const first = use();
  const before = memory.buffer.byteLength;
  for (let i = 0; i < 50; i++) assert.deepEqual(use(), first);
  assert.equal(memory.buffer.byteLength, before);
});

test("an engine that stops is an LsanError, and answers no more", async () => {
  // malloc gives 1024, and lsan_open is `unreachable`
  const code =
    "AGFzbQEAAAABEAJgAX8Bf2AGf39/f39/AX8DAwIAAQQFAXABAQEFAwEAAQYHAX8BQYAICwcfAwZtZW1vcnkCAAZtYWxsb2MAAAlsc2FuX29wZW4AAQoLAgUAQYAICwMAAAs=";
  await assert.rejects(load(content, { wasm: Buffer.from(code, "base64") }), (error) => {
    assert.ok(error.cause instanceof WebAssembly.RuntimeError);
    return error instanceof LsanError && /lsan_open failed: unreachable/.test(error.message);
  });
});
