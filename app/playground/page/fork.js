// A device id used twice: this browser's storage is an old copy, or another has a copy of it.
// Under a new id the device gives what the server has not got from the old one, which is frozen.

// The changes that the log does not hold, in exactly this form, from the old id.
export function unknown(changes, logged, old) {
  const known = new Map(logged.filter(({ device }) => device === old).map((entry) => [entry.counter, entry]));
  return changes.filter((change) => {
    const entry = known.get(change.counter);
    return !entry || entry.at !== change.at || canonical(entry.ops) !== canonical(change.ops);
  });
}

// The changes from 1 on, for a new id: each had seen what the old one had had decided.
export function renumbered(changes, seen) {
  return changes.map(({ context, at, ops }, i) => {
    const clock = { ...context.clock, ...seen };
    return { counter: i + 1, context: { ...context, ...(Object.keys(clock).length ? { clock } : {}) }, at, ops };
  });
}

// Equal for equal values, however their members are ordered.
function canonical(value) {
  if (Array.isArray(value)) return `[${value.map(canonical).join()}]`;
  if (value === null || typeof value !== "object") return JSON.stringify(value);
  const members = Object.keys(value).sort().map((key) => `${JSON.stringify(key)}:${canonical(value[key])}`);
  return `{${members.join()}}`;
}
