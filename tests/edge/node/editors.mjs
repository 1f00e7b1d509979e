// Editors with the stock providers, steered by lines of JSON: tests/edge/editors.py says which.
import { createInterface } from 'node:readline'
import { readFileSync } from 'node:fs'
import { gunzipSync } from 'node:zlib'
import { HocuspocusProvider, HocuspocusProviderWebsocket } from '@hocuspocus/provider'
import WebSocket from 'ws'
import * as current from 'y-websocket'
import * as old from 'y-websocket-1'
import * as Y from 'yjs'

const editors = new Map()
const sockets = new Map()

// What an editor is waiting for is looked at again whenever anything happens to it.
class Editor {
  waiting = new Set()
  closes = []
  denials = []
  constructor (doc) {
    this.doc = doc
    this.text = doc.getText('body')
    doc.on('update', this.look)
  }

  look = () => { for (const look of [...this.waiting]) look() }
  listen (provider, events) {
    this.provider = provider
    for (const event of events) provider.on(event, () => setTimeout(this.look, 0))
    provider.awareness.on('update', this.look)
  }

  state () {
    const states = [...this.provider.awareness.getStates()].filter(([client]) => client !== this.doc.clientID)
    return {
      text: this.text.toString(),
      length: this.text.length,
      letters: this.text.length > 10_000 ? null : [...this.text.toString()].sort().join(''),
      synced: this.provider.synced,
      connected: this.connected(),
      saved: !this.provider.unsyncedChanges,
      others: states.map(([, state]) => JSON.stringify(state)).sort().map((state) => JSON.parse(state)),
      closes: this.closes,
      ended: this.closes.at(-1),
      denials: this.denials
    }
  }

  // Everything that a client had made before its clock.
  has (client, clock) {
    if (Y.getState(this.doc.store, client) >= clock) return
    return new Promise((resolve) => {
      const look = () => {
        if (Y.getState(this.doc.store, client) < clock) return
        this.waiting.delete(look)
        resolve()
      }
      this.waiting.add(look)
    })
  }

  until (wanted, milliseconds) {
    return new Promise((resolve, reject) => {
      const look = () => {
        const state = this.state()
        const fits = Object.entries(wanted).every(
          ([name, value]) => JSON.stringify(state[name]) === JSON.stringify(value))
        if (!fits) return
        clearTimeout(patience)
        this.waiting.delete(look)
        resolve({ ...state, text: state.length > 100_000 ? null : state.text, letters: null })
      }
      const patience = setTimeout(() => {
        this.waiting.delete(look)
        reject(new Error(`waited in vain for ${JSON.stringify(wanted).slice(0, 300)}: ${JSON.stringify(this.state()).slice(0, 600)}`))
      }, milliseconds)
      this.waiting.add(look)
      look()
    })
  }
}

const withYWebsocket = (editor, { WebsocketProvider }, { url, room, token, resync }) => {
  const provider = new WebsocketProvider(url, room, editor.doc, {
    params: { token }, WebSocketPolyfill: WebSocket, disableBc: true, resyncInterval: resync ?? -1
  })
  provider.on('connection-close', (event) => editor.closes.push(event?.code ?? null))
  provider.on('connection-error', (event) => editor.denials.push(event.message ?? ''))
  editor.listen(provider, ['status', 'sync', 'connection-close', 'connection-error', 'closed'])
  editor.connected = () => provider.wsconnected
}

// One socket for all editors that name the same.
const withHocuspocus = (editor, { url, room, token, socket, several }) => {
  const own = editor.own = socket === undefined
  if (own || !sockets.has(socket)) {
    const made = new HocuspocusProviderWebsocket({ url, WebSocketPolyfill: WebSocket, delay: 50, minDelay: 50 })
    if (!own) sockets.set(socket, made)
    editor.socket = made
  } else editor.socket = sockets.get(socket)
  const provider = new HocuspocusProvider({
    websocketProvider: editor.socket, name: room, document: editor.doc, token, sessionAwareness: several ?? false
  })
  provider.on('authenticationFailed', ({ reason }) => editor.denials.push(reason))
  provider.on('close', ({ event }) => editor.closes.push(event.code))
  editor.listen(provider, [
    'status', 'synced', 'close', 'authenticationFailed', 'authenticated', 'unsyncedChanges', 'disconnect'])
  editor.connected = () => provider.isAuthenticated
  provider.attach()
}

const typed = (file) => JSON.parse(gunzipSync(readFileSync(file)))

// Types a trace with one patch to a transaction, some hundred in one turn of the loop, as fast as
// the socket takes them.
const replay = async (editor, txns, socket) => {
  let patches = 0
  for (const { patches: each } of txns) {
    for (const [at, deleted, inserted] of each) {
      if (deleted) editor.text.delete(at, deleted)
      if (inserted) editor.text.insert(at, inserted)
      if (++patches % 200 === 0) {
        do await new Promise((resolve) => setImmediate(resolve))
        while (socket().bufferedAmount > 1_000_000)
      }
    }
  }
  return patches
}

// Two who type at once: each types what they typed, once they have seen what they had seen. What a
// transaction comes to is worked out beside the editors, in documents that hold its history only.
const friends = async (both, { txns }) => {
  const beside = both.map((_, agent) => Object.assign(new Y.Doc(), { clientID: agent + 1 }))
  const seen = both.map(() => new Set())
  const updates = []
  const merge = (agent, parents) => {
    const missing = []
    for (const stack = [...parents]; stack.length;) {
      const txn = stack.pop()
      if (seen[agent].has(txn)) continue
      seen[agent].add(txn)
      missing.push(txn)
      stack.push(...txns[txn].parents)
    }
    for (const txn of missing.sort((a, b) => a - b)) Y.applyUpdate(beside[agent], updates[txn])
  }
  for (const [txn, { agent, parents, patches }] of txns.entries()) {
    merge(agent, parents)
    const other = 2 - agent
    await both[agent].has(other, Y.getState(beside[agent].store, other))
    const text = beside[agent].getText('body')
    beside[agent].once('update', (update) => { updates[txn] = update })
    beside[agent].transact(() => {
      for (const [at, deleted, inserted] of patches) {
        if (deleted) text.delete(at, deleted)
        if (inserted) text.insert(at, inserted)
      }
    })
    seen[agent].add(txn)
    Y.applyUpdate(both[agent].doc, updates[txn], 'typed')
  }
}

const destroy = (name) => {
  const { provider, socket, own } = editors.get(name)
  provider.destroy()
  if (own) socket.destroy()
  editors.delete(name)
}

const commands = {
  open: ({ editor: name, kind, client, ...rest }) => {
    const doc = new Y.Doc()
    if (client) doc.clientID = client
    const editor = new Editor(doc)
    editors.set(name, editor)
    if (kind === 'hocuspocus') withHocuspocus(editor, rest)
    else withYWebsocket(editor, kind === 'y-websocket-1' ? old : current, rest)
    return { client: doc.clientID }
  },
  insert: ({ editor, at, text }) => { editors.get(editor).text.insert(at, text) },
  delete: ({ editor, at, count }) => { editors.get(editor).text.delete(at, count) },
  type: async ({ editor, text, every }) => {
    const { text: typed, doc } = editors.get(editor)
    for (const letter of text) {
      doc.transact(() => typed.insert(typed.length, letter))
      if (every) await new Promise((resolve) => setTimeout(resolve, every))
    }
  },
  fill: ({ editor, at, count }) => { editors.get(editor).text.insert(at, 'x'.repeat(count)) },
  friends: ({ both, file }) => friends(both.map((name) => editors.get(name)), typed(file)),
  state: ({ editor }) => editors.get(editor).state(),
  until: ({ editor, milliseconds, ...wanted }) => editors.get(editor).until(wanted, milliseconds ?? 20_000),
  // Waits until the text is that of the trace.
  receives: ({ editor, file, milliseconds }) => new Promise((resolve, reject) => {
    const found = editors.get(editor)
    const { endContent } = typed(file)
    const patience = setTimeout(
      () => reject(new Error(`${found.text.length} of ${endContent.length} characters`)), milliseconds ?? 100_000)
    const look = () => {
      if (found.text.length !== endContent.length || found.text.toString() !== endContent) return
      clearTimeout(patience)
      found.waiting.delete(look)
      resolve({})
    }
    found.waiting.add(look)
    look()
  }),
  present: ({ editor, state }) => { editors.get(editor).provider.awareness.setLocalState(state) },
  pass: ({ milliseconds }) => new Promise((resolve) => setTimeout(resolve, milliseconds)),
  token: ({ editor, token }) => {
    const { provider } = editors.get(editor)
    if (provider.params) provider.params = { token }
    else provider.configuration.token = token
  },
  disconnect: ({ editor }) => { (editors.get(editor).socket ?? editors.get(editor).provider).disconnect() },
  connect: ({ editor }) => { (editors.get(editor).socket ?? editors.get(editor).provider).connect() },
  detach: ({ editor }) => { editors.get(editor).provider.detach() },
  destroy: ({ editor }) => destroy(editor),
  clear: () => {
    for (const editor of [...editors.keys()]) destroy(editor)
    for (const socket of sockets.values()) socket.destroy()
    sockets.clear()
  },
  replay: async ({ editor, file, txns }) => {
    const found = editors.get(editor)
    const began = performance.now()
    const done = await replay(found, typed(file).txns.slice(...(txns ?? [0])), () => found.provider.ws ?? found.socket.webSocket)
    return { patches: done, milliseconds: performance.now() - began }
  }
}

createInterface({ input: process.stdin }).on('line', async (line) => {
  const { id, do: what, ...rest } = JSON.parse(line)
  try {
    const answer = await commands[what](rest)
    process.stdout.write(JSON.stringify({ id, ...answer }) + '\n')
  } catch (error) {
    process.stdout.write(JSON.stringify({ id, error: String(error.stack ?? error) }) + '\n')
  }
}).on('close', () => process.exit(0))
