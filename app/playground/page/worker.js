// The page while the server is away: as it was last loaded. The network goes first, so that a page
// is never older than it must be.

const KEPT = "rejoin.demo.page";

self.addEventListener("install", () => self.skipWaiting());
self.addEventListener("activate", (event) => event.waitUntil(self.clients.claim()));
self.addEventListener("fetch", (event) => {
  const { method, url } = event.request;
  // The page and its parts; nothing of the API is ever answered from here.
  if (method === "GET" && url.startsWith(self.registration.scope)) event.respondWith(answer(event.request));
});

async function answer(request) {
  const kept = await caches.open(KEPT);
  const fresh = await fetch(request).catch(() => null);
  if (fresh?.ok) await kept.put(request, fresh.clone());
  if (fresh && fresh.status < 500) return fresh;
  // Each part is one thing here, whatever form was asked for.
  return (await kept.match(request, { ignoreVary: true })) ?? fresh ?? Response.error();
}
