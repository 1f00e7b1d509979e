// How a device merges, without the server: its own operations on its copy, and deltas over it.
// A record is {collection, id, fields, conflicts: {field: [sibling]}, documents: {field: [update]}}.
// Nothing here changes what it is given.

export const keyOf = ({ collection, id }) => JSON.stringify([collection, id]);

const blank = (collection, id) => ({ collection, id, fields: {}, conflicts: {}, documents: {} });

// The records with the change done: what its author sees at once, before any server has.
export function done(records, change) {
  const after = new Map(records);
  for (const op of change.ops) {
    const record = OPERATIONS[op.op](after.get(keyOf(op)) ?? blank(op.collection, op.id), op, change);
    if (record) after.set(keyOf(op), record);
    else after.delete(keyOf(op));
  }
  return after;
}

const OPERATIONS = {
  put(record, op, { context }) {
    const from = op.new ? { ...blank(op.collection, op.id), documents: record.documents } : record;
    const conflicts = { ...from.conflicts };
    for (const field of Object.keys(op.fields)) settle(conflicts, field, op.fields[field], context);
    return { ...from, fields: { ...from.fields, ...op.fields }, conflicts };
  },
  delete: () => null,
  increment: (record, op) => withField(record, op.field, (value) => (value ?? 0) + op.by),
  add: (record, op) => withField(record, op.field, (value) => united(value ?? [], op.values)),
  remove(record, op) {
    return withField(record, op.field, (value) => (value ?? []).filter((one) => !op.values.includes(one)));
  },
  edit(record, op) {
    const updates = [...(record.documents[op.field] ?? []), op.update];
    return { ...record, documents: { ...record.documents, [op.field]: updates } };
  },
};

// A write settles the siblings that its author had seen; those that came since stay beside it.
function settle(conflicts, field, value, context) {
  const unseen = (conflicts[field] ?? []).filter((one) => one.position > context.cursor);
  if (unseen.length) conflicts[field] = [{ value, own: true }, ...unseen];
  else delete conflicts[field];
}

function withField(record, field, change) {
  return { ...record, fields: { ...record.fields, [field]: change(record.fields[field]) } };
}

const united = (one, other) => [...new Set([...one, ...other])].sort(byText);

// As the server sorts a set: by the code points of the elements' JSON.
function byText(one, other) {
  const [a, b] = [one, other].map((value) => Array.from(JSON.stringify(value), (c) => c.codePointAt(0)));
  const i = a.findIndex((point, at) => point !== b[at]);
  return i < 0 ? a.length - b.length : a[i] - (b[i] ?? -1);
}

// The record with a delta over it; null: it was deleted.
export function absorbed(record, delta) {
  if (delta.deleted) return null;
  const from = record && !delta.replace ? record : blank(delta.collection, delta.id);
  const conflicts = { ...from.conflicts };
  for (const field of Object.keys(delta.fields ?? {})) delete conflicts[field];
  const documents = { ...from.documents };
  for (const [field, update] of Object.entries(delta.documents ?? {})) {
    documents[field] = [...(documents[field] ?? []), update];
  }
  return {
    ...from,
    fields: { ...from.fields, ...delta.fields },
    conflicts: { ...conflicts, ...delta.conflicts },
    documents,
  };
}
