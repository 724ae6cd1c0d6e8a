// OpenAI's Node SDK against the daemons that tests/wire/test_node_sdk.py started: AUDIOD_URL, and AUDIOD_KEYED_URL,
// which wants AUDIOD_KEY. AUDIOD_CLIP is a recording: "concord returned to its place amidst the tents".
import assert from "node:assert/strict";
import { createReadStream, createWriteStream } from "node:fs";
import { readFile, stat } from "node:fs/promises";
import path from "node:path";
import { pipeline } from "node:stream/promises";
import { Readable } from "node:stream";
import { test } from "node:test";
import OpenAI, { toFile } from "openai";

const { AUDIOD_URL, AUDIOD_KEYED_URL, AUDIOD_KEY, AUDIOD_CLIP, AUDIOD_SCRATCH } = process.env;
const client = new OpenAI({ baseURL: `${AUDIOD_URL}/v1`, apiKey: "none", maxRetries: 0 });
const keyed = (apiKey) => new OpenAI({ baseURL: `${AUDIOD_KEYED_URL}/v1`, apiKey, maxRetries: 0 });
const clip = await readFile(AUDIOD_CLIP);
const speech = { model: "tts-1", voice: "alloy", input: "Hello there." };

const transcribe = (more = {}) => client.audio.transcriptions.create({ file: createReadStream(AUDIOD_CLIP), model: "whisper-1", ...more });

test("a file that is streamed up is understood, and the answer has its request's id", async () => {
  const heard = await transcribe(); // chunked, without Content-Length
  assert.match(heard.text, /returned to its place/);
  assert.match(heard._request_id, /^req_/);
});

test("bytes with a name, without one, and with a type are understood", async () => {
  for (const file of [await toFile(clip, "y.wav", { type: "audio/wav" }), await toFile(clip), new File([clip], "z.webm")]) {
    const heard = await client.audio.transcriptions.create({ file, model: "whisper-1", response_format: "json" });
    assert.match(heard.text, /returned to its place/);
  }
});

test("verbose_json has words and segments", async () => {
  const heard = await transcribe({ response_format: "verbose_json", timestamp_granularities: ["word", "segment"], language: "en" });
  assert.equal(heard.language, "english");
  assert.ok(Math.abs(heard.duration - 3.5) < 0.2);
  assert.ok(heard.words.length >= 7);
  assert.equal(heard.segments.map((segment) => segment.text).join("").trim(), heard.text);
});

test("plain formats arrive as strings", async () => {
  assert.match(await transcribe({ response_format: "text" }), /returned to its place .*\n$/s);
  assert.match(await transcribe({ response_format: "srt" }), /^1\n00:00:/);
  assert.match(await transcribe({ response_format: "vtt" }), /^WEBVTT\n\n/);
});

test("chunking_strategy as an object is accepted", async () => {
  const heard = await transcribe({ chunking_strategy: { type: "server_vad", threshold: 0.4 }, prompt: "tents", temperature: 0 });
  assert.match(heard.text, /tents/);
});

test("a streamed transcript is iterated", async () => {
  let text = "";
  let done;
  for await (const event of await transcribe({ model: "gpt-4o-transcribe", stream: true })) {
    if (event.type === "transcript.text.delta") text += event.delta;
    else done = event;
  }
  assert.equal(done.type, "transcript.text.done");
  assert.equal(done.text, text);
  assert.equal(done.usage.type, "tokens");
});

test("a translation is English", async () => {
  const heard = await client.audio.translations.create({ file: await toFile(clip, "a.wav"), model: "whisper-1" });
  assert.match(heard.text, /tents/);
});

test("speech arrives whole and as a stream", async () => {
  const whole = Buffer.from(await (await client.audio.speech.create({ ...speech, response_format: "wav" })).arrayBuffer());
  assert.equal(whole.toString("latin1", 0, 4), "RIFF");
  const streamed = await client.audio.speech.create(speech);
  assert.equal(streamed.headers.get("content-type"), "audio/mpeg");
  const file = path.join(AUDIOD_SCRATCH, "speech.mp3");
  await pipeline(Readable.fromWeb(streamed.body), createWriteStream(file));
  assert.ok((await stat(file)).size > 1000);
});

test("a voice may be an object", async () => {
  const answer = await client.audio.speech.create({ ...speech, voice: { id: "alloy" }, response_format: "pcm" });
  assert.equal((await answer.arrayBuffer()).byteLength % 2, 0);
});

test("models are listed and found", async () => {
  const ids = [];
  for await (const model of client.models.list()) ids.push(model.id);
  assert.ok(ids.includes("whisper-1") && ids.includes("tts-1"));
  assert.equal((await client.models.retrieve("tts-1")).object, "model");
  await assert.rejects(client.models.retrieve("some/model"), (error) => {
    assert.ok(error instanceof OpenAI.NotFoundError);
    assert.match(error.message, /some\/model/); // %2F on the wire
    return true;
  });
});

test("errors are of the class that their status has, with an id", async () => {
  const refused = async (asked, kind, param) =>
    assert.rejects(asked, (error) => {
      assert.ok(error instanceof kind, `${error.constructor.name}: ${error.message}`);
      assert.match(error.requestID, /^req_/);
      assert.equal(error.param, param);
      assert.ok(error.code && error.type);
      return true;
    });
  await refused(client.audio.speech.create({ ...speech, speed: 9 }), OpenAI.BadRequestError, "speed");
  await refused(client.audio.speech.create({ ...speech, input: "" }), OpenAI.BadRequestError, "input");
  await refused(client.audio.speech.create({ ...speech, model: "no-such-model" }), OpenAI.NotFoundError, "model");
  const file = await toFile(Buffer.from("this is no audio at all"), "a.wav");
  await refused(client.audio.transcriptions.create({ file, model: "whisper-1" }), OpenAI.BadRequestError, "file");
});

test("a wrong key is an AuthenticationError, the right one is none", async () => {
  await assert.rejects(keyed("sk-wrong").models.list(), OpenAI.AuthenticationError);
  await assert.rejects(keyed("sk-wrong").audio.speech.create(speech), OpenAI.AuthenticationError);
  const file = createReadStream(AUDIOD_CLIP);
  await assert.rejects(keyed("sk-wrong").audio.transcriptions.create({ file, model: "whisper-1" }), OpenAI.AuthenticationError);
  assert.ok((await keyed(AUDIOD_KEY).models.list()).data.length > 0);
});

test("a call that is given up leaves the daemon well", async () => {
  const controller = new AbortController();
  const asked = client.audio.speech.create({ ...speech, input: "A long text, again and again. ".repeat(60) }, { signal: controller.signal });
  setTimeout(() => controller.abort(), 100);
  await assert.rejects(asked.then((answer) => answer.arrayBuffer()));
  assert.equal((await client.audio.speech.create(speech)).status, 200);
});
