// Keeps what the page has loaded, for times without its server. The server comes first,
// so what is kept is never older than what it offers.

const CACHE = "keras_vit";
// What the page loads before it waits for this worker.
const SHELL = ["./", "style.css", "app.js", "pixels.js"];

self.addEventListener("install", (event) => {
  event.waitUntil(caches.open(CACHE).then((cache) => cache.addAll(SHELL)).then(() => self.skipWaiting()));
});

self.addEventListener("activate", (event) => event.waitUntil(self.clients.claim()));

// What is the page's own, below its folder: another program may have this port tomorrow.
const OURS = /^(|(index\.html|models\.json|[\w-]+\.(css|js))|(models\/)?[^/]+\.tflite|node_modules\/@litertjs\/.+)$/;

self.addEventListener("fetch", (event) => {
  const { method, url } = event.request;
  const scope = self.registration.scope;
  const ours = url.startsWith(scope) && OURS.test(url.slice(scope.length).split("?")[0]);
  if (method === "GET" && ours) event.respondWith(answer(event));
});

async function answer(event) {
  const cache = await caches.open(CACHE);
  try {
    const response = await fetch(event.request);
    // What is cut off on its way is not kept: then `put` fails.
    if (response.ok) event.waitUntil(cache.put(event.request, response.clone()).catch(() => {}));
    return response;
  } catch (error) {
    const kept = await cache.match(event.request);
    if (kept) return kept;
    throw error;
  }
}
