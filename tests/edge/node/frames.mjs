// Prints the frames that the stock packages write, as JSON: tests/unit/frames.json is a copy.
import { HocuspocusProvider } from '@hocuspocus/provider'
import * as hocuspocus from '@hocuspocus/common'
import * as encoding from 'lib0/encoding'
import * as awareness from 'y-protocols/awareness'
import * as auth from 'y-protocols/auth'
import * as sync from 'y-protocols/sync'
import { WebsocketProvider } from 'y-websocket'
import * as Y from 'yjs'

const CLIENT = 300
const hex = (bytes) => Buffer.from(bytes).toString('hex')
const written = (...writers) => {
  const encoder = encoding.createEncoder()
  for (const write of writers) write(encoder)
  return hex(encoding.toUint8Array(encoder))
}
const number = (value) => (encoder) => encoding.writeVarUint(encoder, value)
const text = (value) => (encoder) => encoding.writeVarString(encoder, value)
const bytes = (value) => (encoder) => encoding.writeVarUint8Array(encoder, value)

const document = (letters) => {
  const made = new Y.Doc()
  made.clientID = CLIENT
  if (letters) made.getText('body').insert(0, letters)
  return made
}

// A socket that keeps what is sent and answers nothing.
class Ear {
  static OPEN = 1
  OPEN = 1
  readyState = 0
  sent = []
  listeners = {}
  constructor () {
    Ear.last = this
    setTimeout(() => { this.readyState = 1; this.onopen?.({}); this.listeners.open?.({}) }, 0)
  }
  addEventListener (name, listener) { this.listeners[name] = listener }
  removeEventListener (name) { delete this.listeners[name] }
  send (frame) { this.sent.push(hex(frame)) }
  close () {}
}
const heard = async (count) => {
  while (Ear.last.sent.length < count) await new Promise((resolve) => setTimeout(resolve, 1))
  return Ear.last.sent
}

const yWebsocket = async () => {
  const doc = document('ab')
  new WebsocketProvider('ws://x', 'room', doc, { WebSocketPolyfill: Ear, disableBc: true })
  await heard(2)
  doc.getText('body').insert(2, 'c')
  return heard(3)
}

const hocuspocusProvider = async () => {
  const doc = document('ab')
  const provider = new HocuspocusProvider({
    url: 'ws://x', name: 'space/notes/n1/body', document: doc, token: 'a.b.c', WebSocketPolyfill: Ear
  })
  await heard(3)
  doc.getText('body').insert(2, 'c')
  provider.sendStateless('hello')
  await heard(5)
  provider.configuration.websocketProvider.detach(provider)
  return heard(6)
}

const presences = (doc, states) => {
  const made = new awareness.Awareness(doc)
  const clients = Object.keys(states).map(Number)
  for (const client of clients) {
    made.meta.set(client, { clock: client % 7, lastUpdated: 0 })
    if (states[client]) made.states.set(client, states[client])
  }
  return awareness.encodeAwarenessUpdate(made, clients)
}

const full = document('ab')
const named = text('space/notes/n1/body')
process.stdout.write(JSON.stringify({
  vector: hex(Y.encodeStateVector(full)),
  update: hex(Y.encodeStateAsUpdate(full)),
  'y-websocket sends': await yWebsocket(),
  'hocuspocus sends': await hocuspocusProvider(),
  server: {
    'step 1': written(number(0), (e) => sync.writeSyncStep1(e, full)),
    'step 2': written(number(0), (e) => sync.writeSyncStep2(e, full)),
    update: written(number(0), (e) => sync.writeUpdate(e, Y.encodeStateAsUpdate(full))),
    awareness: written(number(1), bytes(presences(full, { 1: { user: 'é' }, 300: null, 4294967295: { a: [1] } }))),
    denied: written(number(2), (e) => auth.writePermissionDenied(e, 'not you')),
    authenticated: written(named, number(2), (e) => hocuspocus.writeAuthenticated(e, 'read-write')),
    readonly: written(named, number(2), (e) => hocuspocus.writeAuthenticated(e, 'readonly')),
    refused: written(named, number(2), (e) => hocuspocus.writePermissionDenied(e, 'not you')),
    'token wanted': written(named, number(2), (e) => hocuspocus.writeTokenSyncRequest(e)),
    saved: written(named, number(8), number(1)),
    close: written(named, number(7), text('bye'))
  }
}, null, 1) + '\n')
process.exit(0)
