// The page: what is shown, and what happens when. Labels come from files that anybody
// may have made, so they become text and never markup.

import { openImage, readPixels } from "./pixels.js";

const TOP = 5;
const CAMERA_PAUSE_MS = 150; // leaves the page time to answer the user between frames
const ACCELERATORS = { wasm: "WASM", webgpu: "WebGPU" };
const byId = (id) => document.getElementById(id);
const [models, picture, video, camera] = ["models", "picture", "video", "camera"].map(byId);

let runner = null; // model.js, once LiteRT.js is there
const readers = new WeakMap(); // how the bytes behind an option of the picker are had
let classifier = null;
let used = null; // its option
let image = null; // { pixels, name } of the file that is shown
let stream = null;

// One thing at a time, in the order in which it was asked for.
let queue = Promise.resolve();
const inTurn = (job) => (queue = queue.then(job).catch(complain));

function complain(error) {
  console.error(error);
  byId("error").textContent = error.message;
  say("");
}

function say(text) {
  if (byId("status").textContent !== text) byId("status").textContent = text;
}

function clear() {
  byId("error").textContent = "";
  byId("results").replaceChildren();
  byId("time").textContent = "";
}

async function start() {
  say("Loading LiteRT.js");
  await underServiceWorker();
  try {
    runner = await import("./model.js");
    await runner.startRuntime();
  } catch (error) {
    throw new Error(`LiteRT.js can't be loaded: ${error.message ?? error}`);
  }
  const response = await fetch("models.json").catch(() => null);
  const offered = response?.ok ? await response.json() : [];
  for (const { name, url } of offered) offer(name, () => download(name, url));
  await forgetOthers(offered);
  if (offered.length) await useModel(models.options[0]);
  else say("No model yet: open a .tflite file.");
}

// Under the service worker from the start, so that it keeps all that is loaded.
async function underServiceWorker() {
  const workers = navigator.serviceWorker;
  if (!workers) return;
  try {
    const { active } = await workers.register("service-worker.js");
    if (active) return; // it has this page, or the user's forced reload keeps it off
    await new Promise((resolve) => {
      workers.addEventListener("controllerchange", resolve, { once: true });
      setTimeout(resolve, 3000); // the page works without it
    });
  } catch (error) {
    console.warn("Not kept for offline use.", error);
  }
}

// Models that the server no longer offers need not be kept.
async function forgetOthers(offered) {
  if (!self.caches || !offered.length) return;
  const wanted = new Set(offered.map(({ url }) => new URL(url, document.baseURI).href));
  const cache = await caches.open("keras_vit");
  for (const { url } of await cache.keys()) {
    if (url.endsWith(".tflite") && !wanted.has(url)) await cache.delete(url);
  }
}

function offer(name, read) {
  const option = new Option(name);
  readers.set(option, read);
  models.add(option);
  models.disabled = false;
  return option;
}

async function download(name, url) {
  try {
    const response = await fetch(url);
    if (!response.ok) throw new Error(response.statusText);
    return await response.arrayBuffer(); // fails if it ends too soon
  } catch {
    throw new Error(`“${name}” did not arrive whole. Is the server running?`);
  }
}

async function useModel(option) {
  if (!runner) throw new Error("LiteRT.js is not loaded. Load the page again.");
  enable(false);
  clear();
  say(`Loading ${option.text}`);
  try {
    const read = await runner.readModel(new Uint8Array(await readers.get(option)()), option.text);
    // Two at once could want more threads than there are, and wait for ever.
    classifier?.delete();
    classifier = used = null;
    classifier = await runner.Classifier.open(read);
    used = option;
  } finally {
    models.selectedIndex = used ? used.index : -1;
    byId("accelerator").textContent = classifier
      ? `${ACCELERATORS[classifier.accelerator]}: ${classifier.reason}`
      : "";
    byId("doubts").textContent = classifier?.doubts.join(" ") ?? "";
    enable(classifier !== null);
  }
  if (image) await show();
  else say(`${option.text} is ready. Drop or choose an image.`);
}

function enable(ready) {
  if (!ready) stopCamera();
  byId("open-image").disabled = camera.disabled = !ready;
}

async function openModelFile(file) {
  const option = offer(file.name, () => file.arrayBuffer());
  try {
    await useModel(option);
  } catch (error) {
    option.remove();
    models.disabled = models.length === 0;
    throw error;
  }
}

async function openImageFile(file) {
  stopCamera();
  image = null;
  view(byId("hint"));
  clear();
  say(`Reading ${file.name}`);
  let pixels;
  try {
    pixels = await openImage(file);
  } catch {
    throw new Error(`“${file.name}” is damaged, or no image that this browser reads.`);
  }
  image = { pixels, name: file.name };
  URL.revokeObjectURL(picture.src);
  picture.src = URL.createObjectURL(file);
  picture.alt = file.name;
  picture.classList.toggle("tiny", Math.max(pixels.width, pixels.height) < 128);
  view(picture);
  await show();
}

/** A file that was dropped: a model by its content, anything else as an image. */
async function openAny(file) {
  const start = new Uint8Array(await file.slice(4, 8).arrayBuffer());
  const isModel = String.fromCharCode(...start) === "TFL3" || /\.tflite$/i.test(file.name);
  if (isModel) return openModelFile(file);
  if (!classifier) throw new Error("An image needs a model first: open a .tflite file.");
  return openImageFile(file);
}

function view(element) {
  for (const each of [byId("hint"), picture, video]) each.hidden = each !== element;
}

async function show() {
  if (classifier.lost) return useModel(used); // as when a phone was asleep
  draw(await classifier.measure(classifier.fit(image.pixels)), image.name);
}

function draw({ probabilities, milliseconds }, name) {
  const order = [...probabilities.keys()].sort((a, b) => probabilities[b] - probabilities[a] || a - b);
  const shown = classifier.givesProbabilities ? percent : (score) => score.toFixed(2);
  const rows = order.slice(0, TOP).map((index) => row(classifier.labels[index], probabilities[index], shown));
  byId("results").replaceChildren(...rows);
  byId("time").textContent = `${runner.inMilliseconds(milliseconds)} an image`;
  say(`${name}: ${classifier.labels[order[0]]}`);
}

function percent(probability) {
  return `${(100 * probability).toFixed(1)}%`;
}

function row(label, probability, shown) {
  const [item, name, part, bar] = ["li", "span", "span", "span"].map((tag) => document.createElement(tag));
  name.textContent = label;
  part.textContent = shown(probability);
  bar.style.inlineSize = shown === percent ? `${100 * Math.min(Math.max(probability, 0), 1)}%` : "0";
  item.dataset.probability = probability;
  [name.className, part.className, bar.className] = ["name", "part", "bar"];
  item.append(name, " ", part, bar);
  return item;
}

// Not in turn, or a question that is never answered would hold up everything.
async function askForCamera() {
  camera.disabled = true;
  clear();
  say("Asking for the camera");
  try {
    const opened = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "environment" } });
    await inTurn(() => startCamera(opened));
  } catch (error) {
    const refused = error.name === "NotAllowedError";
    complain(new Error(
      refused
        ? "The camera was refused. Your browser's settings for this page allow it again."
        : "There is no camera that can be used."));
  } finally {
    camera.disabled = classifier === null;
  }
}

async function startCamera(opened) {
  stream = opened;
  if (!classifier) return stopCamera(); // the model went while the user was asked
  video.srcObject = stream;
  await video.play();
  clear();
  camera.textContent = "Stop the camera";
  view(video);
  await watch();
}

async function watch() {
  if (!stream) return;
  if (classifier.lost) return useModel(used); // the camera can then be started again
  try {
    const frame = readPixels(video, video.videoWidth, video.videoHeight);
    draw(await classifier.run(classifier.fit(frame)), "Camera");
  } catch (error) {
    stopCamera();
    throw error;
  }
  setTimeout(() => inTurn(watch), CAMERA_PAUSE_MS);
}

function stopCamera() {
  if (!stream) return;
  for (const track of stream.getTracks()) track.stop();
  stream = null;
  video.srcObject = null;
  camera.textContent = "Use the camera";
  clear();
  say("The camera is off.");
  view(image ? picture : byId("hint"));
}

function chosen(input, open) {
  input.addEventListener("change", () => {
    const [file] = input.files;
    if (file) inTurn(() => open(file));
    input.value = ""; // so that the same file can be chosen again
  });
}

byId("open-image").addEventListener("click", () => byId("image-file").click());
byId("open-model").addEventListener("click", () => byId("model-file").click());
chosen(byId("image-file"), openImageFile);
chosen(byId("model-file"), openModelFile);
models.addEventListener("change", () => {
  const [option] = models.selectedOptions;
  inTurn(() => useModel(option));
});
camera.addEventListener("click", () => (stream ? inTurn(stopCamera) : askForCamera()));
// Anywhere on the page: a browser would leave it for a file that misses the frame.
document.addEventListener("dragover", (event) => {
  event.preventDefault();
  byId("drop").classList.add("over");
});
for (const name of ["dragleave", "drop"]) {
  document.addEventListener(name, () => byId("drop").classList.remove("over"));
}
document.addEventListener("drop", (event) => {
  event.preventDefault();
  const [file] = event.dataTransfer.files;
  if (file) inTurn(() => openAny(file));
});
inTurn(start);
