// What `make yjs` bundles: all that the text pane takes from Yjs.
export { Doc, applyUpdate, encodeStateAsUpdate, mergeUpdates } from "yjs";
