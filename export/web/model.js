// A .tflite -> a classifier with class names and preprocessing: classifier.py once more.

import {
  Environment, getDefaultEnvironment, getGlobalLiteRt, loadAndCompile, loadLiteRt, supportsFeature, Tensor,
  unloadLiteRt,
} from "@litertjs/core";
import { ascii, FileError, storedFiles } from "./archive.js";
import { checkContract } from "./contract.js";
import { endsOf, namesOf, numbersOf, pixelsOf, ruleOf } from "./ends.js";
import { readDescription } from "./flatbuffer.js";
import { fitImage } from "./pixels.js";
import { draw, explain, find, judge } from "./self-test.js";

const WASM = new URL("node_modules/@litertjs/core/wasm/", import.meta.url).href;
// A run after a pause is slower, so short ones are repeated and the median is told.
const RUNS = 5;
const RUNS_MS = 100;
const WEBGPU_LIMIT_MS = 5000; // for all that is tried there before WASM is taken

let runtime = null;

/** LiteRT.js, loaded once; with threads where the browser has them. */
export function startRuntime() {
  runtime ??= loadRuntime();
  runtime.catch(() => (runtime = null)); // the next call tries again
  return runtime;
}

async function loadRuntime() {
  const features = await Promise.all(["threads", "relaxedSimd"].map(supportsFeature));
  // It would ask for a WebGPU device here, and wait even for one that never comes.
  const { create } = Environment;
  Environment.create = () => new Environment({ webGpuDevice: null });
  return loadLiteRt(WASM, { threads: self.crossOriginIsolated && features.every(Boolean) })
    .finally(() => (Environment.create = create));
}

// After a crash its memory is in an unknown state: what frees something there may wait for
// ever, as it did for threads after 4-bit weights on WebGPU. So all of it is left alone.
function dropRuntime() {
  runtime = null;
  try {
    getGlobalLiteRt().delete = () => {};
    unloadLiteRt();
  } catch (error) {
    console.warn(error);
  }
}

/**
 * What can be known of a model without running it: `{ bytes, name, labels, contract, description, doubt }`.
 *
 * Throws a FileError if the bytes are no TFLite model, were cut off behind it, or are not
 * those whose digest the file has.
 */
export async function readModel(bytes, name) {
  if (ascii(bytes, 4, 4) !== "TFL3") throw new FileError(`“${name}” is no TFLite model.`);
  let read;
  try {
    read = readMetadata(bytes);
  } catch (error) {
    const reason = error instanceof FileError ? error.message : "";
    throw new FileError(`“${name}” is cut off or damaged: its class names can't be read. ${reason}`);
  }
  const { labels, contract, end, doubt } = read;
  // Browsers have it on https and on loopback only.
  if (self.crypto.subtle && contract.sha256) {
    const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", bytes.subarray(0, end)));
    const found = Array.from(digest, (byte) => byte.toString(16).padStart(2, "0")).join("");
    if (found !== contract.sha256) {
      throw new FileError(`“${name}” is damaged: its SHA-256 is not that of the model that was written.`);
    }
  }
  const description = contract.preprocessing ? null : describe(bytes);
  return { bytes, name, labels, contract, description, doubt };
}

// Of a file of another make; one that is damaged is for LiteRT.js to refuse.
function describe(bytes) {
  try {
    return readDescription(bytes);
  } catch {
    return { mean: [], std: [], labels: "", calibrated: false };
  }
}

function threadsFor({ recipe }) {
  // LiteRT.js 2.5.3 computes attention products of 8-bit integers wrongly on several
  // threads, without a word. Other recipes may have them; files that name none may not.
  if (!["float32", "float16", "dynamic_int8", "int16x8", "int4"].includes(recipe)) return 1;
  return Math.min(navigator.hardwareConcurrency, 4); // more only wake a phone's slow cores
}

export class Classifier {
  /**
   * Prepares a model that was read, on WASM or, where the file's self-test is passed
   * sooner there, on WebGPU; `reason` then says why.
   *
   * With `accelerator`, "wasm" or "webgpu", on that one, whatever it answers. Throws a
   * FileError if the model is no image classifier, or can't be run.
   */
  static async open(model, { accelerator } = {}) {
    try {
      return await (accelerator ? prepare(model, accelerator) : prepareOnBest(model));
    } catch (error) {
      if (error instanceof FileError) throw error;
      throw new FileError(`“${model.name}” is cut off, or LiteRT.js can't run it. ${firstLine(error)}`);
    }
  }

  constructor(compiled, environment, model) {
    const { name, labels, contract, description, doubt } = model;
    this.compiled = compiled;
    this.environment = environment;
    this.accelerator = compiled.options.accelerator;
    this.reason = "";
    this.lost = false; // whether the browser has taken the device away
    environment.webGpuDevice?.lost.then(() => (this.lost = true));
    [this.input, this.output] = endsOf(compiled, model);
    this.rule = ruleOf(this.input, contract, name);
    const count = this.output.shape[1];
    const named = namesOf(labels, count);
    this.labels = named.names;
    this.selfTest = selfTestOf(contract, count, name);
    this.verdict = null; // on the self-test, once it was run
    const pixels = pixelsOf(this.input, description);
    this.typed = pixels.read;
    this.givesProbabilities = true; // of a file of another make, once it was tried
    this.doubts = [doubt, named.doubt, pixels.doubt].filter(Boolean); // what nothing tells for sure
  }

  /** The self-test's image; a black one where the file has no self-test. */
  get pattern() {
    const shape = [...this.input.shape].slice(1);
    return draw(this.selfTest?.pattern ?? { seed: 0, cell: 1, low: 0, span: 0 }, shape);
  }

  /** RGBA pixels -> those that the model takes. */
  fit(image) {
    return fitImage(image, this.rule);
  }

  /** Probabilities of the classes for pixels that fit, and the milliseconds it took. */
  async run(pixels) {
    const typed = this.typed(pixels);
    const start = performance.now();
    const input = new Tensor(typed, [...this.input.shape], this.environment);
    const [output] = await this.compiled.run(input);
    const row = Array.from(await output.data());
    const milliseconds = performance.now() - start;
    input.delete();
    output.delete();
    return { probabilities: numbersOf(row, this.output), milliseconds };
  }

  /** Whether rows of a file of another make sum to 1, as probabilities do: tried on patterns. */
  async tryMeaning({ calibrated }) {
    const size = this.pattern.length;
    const patterns = [this.pattern, new Uint8Array(size), new Uint8Array(size).fill(255)];
    let like = !calibrated;
    for (const pixels of patterns) {
      const { probabilities: row } = await this.run(pixels);
      const rounding = Math.min(0.5, row.length * this.output.scale / 2);
      const sum = row.reduce((total, value) => total + value, 0);
      like &&= Math.min(...row) >= 0 && Math.abs(sum - 1) < 0.01 + rounding;
    }
    this.givesProbabilities = like;
    if (!like) this.doubts.push("These numbers are no probabilities: they don’t sum to 1.");
  }

  /** As `run`, several times where that is quick: the milliseconds are the median. */
  async measure(pixels) {
    const times = [];
    let answer;
    for (let spent = 0; times.length < RUNS && spent < RUNS_MS; spent += answer.milliseconds) {
      answer = await this.run(pixels);
      times.push(answer.milliseconds);
    }
    return { ...answer, milliseconds: times.sort((a, b) => a - b)[times.length >> 1] };
  }

  /** Frees the model's memory. */
  delete() {
    this.compiled.delete();
    release(this.environment);
  }
}

// A classifier on one accelerator, after its first run, which is slower: the self-test.
async function prepare(model, accelerator) {
  await startRuntime();
  const onGpu = accelerator === "webgpu";
  let environment, compiled;
  try {
    environment = onGpu ? await Environment.create() : getDefaultEnvironment();
    compiled = await loadAndCompile(model.bytes, {
      accelerator,
      environment,
      cpuOptions: { numThreads: onGpu ? 1 : threadsFor(model.contract) },
    });
    // LiteRT.js would let WASM do what WebGPU can't, or everything.
    if (onGpu && !(compiled.options.accelerator === accelerator && compiled.isFullyAccelerated)) {
      throw new Error("WebGPU has not all of its operations.");
    }
    const classifier = new Classifier(compiled, environment, model);
    const { probabilities } = await classifier.run(classifier.pattern);
    if (classifier.selfTest) classifier.verdict = judge(classifier.selfTest, probabilities);
    if (model.description) await classifier.tryMeaning(model.description);
    return classifier;
  } catch (error) {
    if (error instanceof WebAssembly.RuntimeError) {
      dropRuntime();
    } else {
      compiled?.delete();
      release(environment);
    }
    throw error;
  }
}

// WASM's environment is everyone's; one with a device is that of one classifier. Only one
// may be there: in LiteRT.js 2.5.3, with its device that of all others goes.
function release(environment) {
  if (!environment?.webGpuDevice) return;
  environment.webGpuDevice.destroy();
  environment.delete();
}

async function prepareOnBest(model) {
  let wasm = await prepare(model, "wasm");
  if (wasm.verdict?.passed === false) {
    wasm.delete();
    throw new FileError(`“${model.name}” fails its self-test here: ${firstLine(explain(wasm.verdict, wasm.labels))}`);
  }
  const loaded = runtime;
  const trial = await tryWebgpu(wasm.selfTest, model);
  if (runtime !== loaded) wasm = await prepare(model, "wasm"); // WebGPU ended it
  const { milliseconds } = trial.passed ? await wasm.measure(wasm.pattern) : {};
  const { accelerator, reason } = choose({ milliseconds }, trial);
  const [taken, left] = accelerator === "webgpu" ? [trial.classifier, wasm] : [wasm, trial.classifier];
  left?.delete();
  taken.reason = reason;
  return taken;
}

/**
 * The accelerator to take, and why, in words.
 *
 * `webgpu` has `refused`, the reason why it gave no answer, or whether it `passed` the
 * self-test; the milliseconds of each are those of one image.
 */
export function choose(wasm, webgpu) {
  if (webgpu.refused) return { accelerator: "wasm", reason: webgpu.refused };
  if (!webgpu.passed) return { accelerator: "wasm", reason: "WebGPU answers wrongly" };
  const [here, there] = [wasm, webgpu].map(({ milliseconds }) => inMilliseconds(milliseconds));
  return webgpu.milliseconds < wasm.milliseconds
    ? { accelerator: "webgpu", reason: `passes the file’s self-test, ${there}, WASM ${here}` }
    : { accelerator: "wasm", reason: `${here}, WebGPU ${there}` };
}

let givenUp = ""; // why WebGPU is not asked again: what it holds may never be freed

// What `choose` takes of WebGPU, with the classifier where there is one. Never throws.
async function tryWebgpu(selfTest, model) {
  if (!selfTest) return { refused: "the file carries no self-test" };
  if (!navigator.gpu) return { refused: "no WebGPU here" };
  if (givenUp) return { refused: givenUp };
  // In files of earlier versions, which say no more than that, LiteRT.js 2.5.3 reads
  // beyond its memory there.
  if (model.contract.recipe === "int4") return { refused: "WebGPU can’t run 4-bit weights" };
  const trial = runOnWebgpu(model);
  const limit = new Promise((resolve) => setTimeout(resolve, WEBGPU_LIMIT_MS, null));
  try {
    const result = await Promise.race([trial, limit]);
    if (result) return result;
    trial.then(({ classifier }) => classifier?.delete(), console.warn);
    givenUp = "WebGPU does not answer";
  } catch (error) {
    console.warn(error);
    if (!(error instanceof WebAssembly.RuntimeError)) return { refused: "WebGPU can’t run it" };
    givenUp = "WebGPU crashed";
  }
  return { refused: givenUp };
}

async function runOnWebgpu(model) {
  if (!(await navigator.gpu.requestAdapter())) return { refused: "no WebGPU here" };
  const classifier = await prepare(model, "webgpu");
  const { passed } = classifier.verdict;
  if (!passed) return { classifier, passed };
  await classifier.measure(classifier.pattern); // of a GPU, more than the first run is slow
  return { classifier, passed, milliseconds: (await classifier.measure(classifier.pattern)).milliseconds };
}

/** Milliseconds as text. */
export function inMilliseconds(milliseconds) {
  return `${milliseconds.toFixed(milliseconds < 10 ? 2 : 0)} ms`;
}

function selfTestOf(contract, count, name) {
  try {
    return find(contract, count);
  } catch (error) {
    throw new FileError(`“${name}” is damaged: ${error.message}`);
  }
}

// Class names and contract, which are files of a ZIP archive behind the model, and where
// the model ends.
function readMetadata(bytes) {
  const { files, start } = storedFiles(bytes);
  const content = (name) => files.has(name) ? files.get(name)() : new Uint8Array();
  const utf8 = new TextDecoder("utf-8", { fatal: true });
  const contract = files.has("keras_vit.json") ? JSON.parse(utf8.decode(content("keras_vit.json"))) : {};
  const read = { contract: checkContract(contract), end: start };
  const name = nameOfLabels(files, bytes);
  try {
    return { ...read, labels: parseLabels(content(name)), doubt: "" };
  } catch (error) {
    if (error instanceof FileError) throw error;
    return { ...read, labels: [], doubt: `The class names in its ${name} are no UTF-8 and are not used.` };
  }
}

// Names, one a line: UTF-8, or UTF-16 with a byte order mark.
function parseLabels(bytes) {
  const [first, second] = bytes;
  const encoding = first === 0xff && second === 0xfe ? "utf-16le" : first === 0xfe && second === 0xff ? "utf-16be" : "utf-8";
  const text = new TextDecoder(encoding, { fatal: true }).decode(bytes).trimEnd();
  return text.trim() ? text.split(/\r\n|\r|\n/).map((line) => line.trim()) : [];
}

// Of another make it may be any.
function nameOfLabels(files, bytes) {
  const foreign = files.size > 0 && !files.has("keras_vit.json");
  return (foreign && readDescription(bytes).labels) || "labels.txt";
}

function firstLine(error) {
  return String(error?.message ?? error).split("\n")[0].slice(0, 200);
}
