// A pane's own storage: an IndexedDB of its name. What is written in one call is written whole.

const VERSION = 1;

export async function openStore(name) {
  const opening = indexedDB.open(name, VERSION);
  opening.onupgradeneeded = () => {
    opening.result.createObjectStore("state");
    opening.result.createObjectStore("records", { keyPath: ["collection", "id"] });
    opening.result.createObjectStore("outbox", { keyPath: "counter" });
  };
  return new Store(await done(opening));
}

export function dropStore(name) {
  const dropping = indexedDB.deleteDatabase(name);
  return new Promise((resolve, reject) => {
    dropping.onsuccess = () => resolve();
    dropping.onerror = () => reject(dropping.error);
    dropping.onblocked = () => reject(new Error("Another tab has this page open: close it first."));
  });
}

class Store {
  constructor(database) {
    this.database = database;
    // Whoever drops the storage, from another tab too, need not wait for this one.
    database.onversionchange = () => database.close();
  }

  async read() {
    const reading = this.database.transaction(["state", "records", "outbox"]);
    const [state, records, outbox] = await Promise.all([
      done(reading.objectStore("state").get("device")),
      done(reading.objectStore("records").getAll()),
      done(reading.objectStore("outbox").getAll()),
    ]);
    return { state, records, outbox };
  }

  // `records` and `outbox`: what to put; `afresh`: drop all records first; `gone` and `sent`: the
  // keys of records and the counters of changes to delete.
  async write({ state, records = [], gone = [], outbox = [], sent = [], afresh = false }) {
    const writing = this.database.transaction(["state", "records", "outbox"], "readwrite", {
      durability: "strict",
    });
    const finished = new Promise((resolve, reject) => {
      writing.oncomplete = () => resolve();
      writing.onabort = () => reject(writing.error ?? new Error("The browser did not keep it."));
    });
    if (state) writing.objectStore("state").put(state, "device");
    if (afresh) writing.objectStore("records").clear();
    for (const key of gone) writing.objectStore("records").delete(key);
    for (const record of records) writing.objectStore("records").put(record);
    for (const counter of sent) writing.objectStore("outbox").delete(counter);
    for (const change of outbox) writing.objectStore("outbox").put(change);
    await finished;
  }

  close() {
    this.database.close();
  }
}

function done(asked) {
  return new Promise((resolve, reject) => {
    asked.onsuccess = () => resolve(asked.result);
    asked.onerror = () => reject(asked.error);
  });
}
