// Search: which rows match. Each text of the page is looked at once a term, however many rows have it.

const FIELDS = ["what", "topic", "event", "status", "ref"];
const UNITS = { ns: 1, us: 1e3, "µs": 1e3, ms: 1e6, s: 1e9, "": 1e6 };

let lowered = null;       // the texts, in lower case
let matching = null;      // a byte a row; null: nothing is searched for
let matches = [];         // the rows that match, as they are listed

// Splits a query into terms: a"b c" is one term.
function terms_of(query) {
  return (query.match(/(?:[^\s"]|"[^"]*(?:"|$))+/g) ?? []).map((term) => term.replaceAll('"', "").toLowerCase()).filter(Boolean);
}

function search(query) {
  const terms = terms_of(query);
  matching = terms.length ? new Uint8Array(size).fill(1) : null;
  if (!matching) return;
  lowered ??= content.texts.map((text) => text.toLowerCase());
  for (const term of terms) restrict(test_of(term));
}

function restrict(test) {
  for (let row = 0; row < size; row++) if (matching[row] && !test(row)) matching[row] = 0;
}

function test_of(term) {
  const found = term.match(/^took([<>])=?([\d.]+)(ns|us|µs|ms|s|)$/);
  if (found) {
    const limit = Number(found[2]) * UNITS[found[3]];
    return found[1] === ">" ? (row) => took[row] >= limit : (row) => took[row] >= 0 && took[row] <= limit;
  }
  if (term === "is:error") return is_bad;
  const field = FIELDS.find((name) => term.startsWith(`${name}:`) && term.length > name.length + 1);
  if (field) return contains(term.slice(field.length + 1), [field]);
  const plain = contains(term, TEXTS);
  const named = content.connections.map((its) => [its.connection_id, its.trace_id, its.socket_id].some((id) => id?.startsWith(term)));
  const is_id = /^[0-9a-f]+$/.test(term);
  return (row) => plain(row) || named[content.connection[row]] || (is_id && ids[row].startsWith(term));
}

// Columns are those of numbers; a ref is compared whole, as "1" is in nearly everything.
function contains(term, columns) {
  const whole = columns.length === 1 && columns[0] === "ref";
  const hit = Uint8Array.from(lowered, (text) => (whole ? text === term : text.includes(term)));
  const found = new Uint8Array(size);
  for (const name of columns) {
    const column = content[name];
    for (let row = 0; row < size; row++) if (hit[column[row]]) found[row] = 1;
  }
  return (row) => found[row];
}
