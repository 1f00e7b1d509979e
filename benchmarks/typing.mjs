// One editor with the stock y-websocket provider, steered by lines of JSON: benchmarks/editors.py.
import { createHash } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { createInterface } from 'node:readline'
import { gunzipSync } from 'node:zlib'
import WebSocket from 'ws'
import { WebsocketProvider } from 'y-websocket'
import * as Y from 'yjs'

// Typing leaves the loop so often, and waits while so much has not gone out yet.
const PATCHES_PER_TURN = 200
const UNSENT_BYTES = 1_000_000

// Milliseconds since 1970: comparable between the processes of one machine.
const now = () => performance.timeOrigin + performance.now()
const patches = JSON.parse(gunzipSync(readFileSync(process.argv[2]))).txns.flatMap((txn) => txn.patches)
let editor

const join = ({ url, room, token }) => {
  const doc = new Y.Doc()
  const made = { doc, text: doc.getText('body'), last: 0, look: () => {} }
  doc.on('update', () => { made.last = now(); made.look() })
  made.provider = new WebsocketProvider(url, room, doc, {
    params: { token }, WebSocketPolyfill: WebSocket, disableBc: true
  })
  return made
}

const state = ({ doc, text }, client) => ({
  client, clock: Y.getState(doc.store, client), length: text.length
})
const digest = ({ text }) => createHash('sha256').update(text.toString()).digest('hex')

// When the editor had what another one typed.
const until = (made, { client, clock, length, hash }) => new Promise((resolve) => {
  made.look = () => {
    const reached = state(made, client)
    if (reached.clock !== clock || reached.length !== length || digest(made) !== hash) return
    made.look = () => {}
    resolve(made.last)
  }
  made.look()
})

const commands = {
  join: async (where) => {
    editor?.provider.destroy()
    editor = join(where)
    if (!editor.provider.synced) await new Promise((resolve) => editor.provider.once('sync', resolve))
    return { port: editor.provider.ws._socket.localPort }
  },
  type: async ({ from, to }) => {
    const { doc, text, provider } = editor
    const at = now()
    for (let number = from; number < to; number++) {
      const [place, deleted, inserted] = patches[number]
      doc.transact(() => {
        if (deleted) text.delete(place, deleted)
        if (inserted) text.insert(place, inserted)
      })
      if ((number - from + 1) % PATCHES_PER_TURN === 0) {
        do await new Promise((resolve) => setImmediate(resolve))
        while (provider.ws.bufferedAmount > UNSENT_BYTES)
      }
    }
    return { at, typed: now(), ...state(editor, doc.clientID), hash: digest(editor) }
  },
  receive: async (wanted) => ({ at: await until(editor, wanted) }),
  load: async ({ wanted, ...where }) => {
    const at = now()
    const fresh = join(where)
    const spent = (await until(fresh, wanted)) - at
    fresh.provider.destroy()
    return { milliseconds: spent }
  },
  count: () => ({ patches: patches.length })
}

for await (const line of createInterface({ input: process.stdin })) {
  const { command, ...about } = JSON.parse(line)
  process.stdout.write(JSON.stringify(await commands[command](about)) + '\n')
}
process.exit()
