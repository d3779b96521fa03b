// The content of the page: columns by row, and what can be asked about a row.

const IN = 0, OUT = 1, HERE = 2, CLIENT = 3, ONCE = 4;
const KINDS = ["in", "out", "here", "client", "once"];
const KIND_NAMES = ["received", "sent", "inside", "client", "events"];
const ARROWS = ["←", "→", "·", "·", "◆"];
const BAD = 2, GOOD = 1;
const TEXTS = ["what", "topic", "event", "status", "note", "ref", "payload", "more"];

let content;
let size = 0;
let begin, took, ends, kind;        // numbers by row
let ids = [];                       // span ids by row
let by_connection = [];             // rows of each connection, in order
let by_ref = null;                  // rows of a connection and a ref

async function unpack(base64) {
  const bytes = Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return JSON.parse(await new Response(stream).text());
}

function take(unpacked) {
  content = unpacked;
  size = content.begin.length;
  begin = Float64Array.from(content.begin);
  took = Float64Array.from(content.took);
  ends = begin.map((at, row) => at + Math.max(took[row], 0));
  const client = content.texts.indexOf("client"), handle = content.texts.indexOf("handle");
  kind = Uint8Array.from(content.group, (group, row) =>
    group === handle ? [HERE, OUT, IN][content.direction[row]] : group === client ? CLIENT : ONCE);
  // What never ended lasts until the end of the page.
  for (let row = 0; row < size; row++) if (text("status", row) === "unfinished") ends[row] = content.end;
  ids = content.span_ids.split(" ");
  by_connection = content.connections.map(() => []);
  for (let row = 0; row < size; row++) by_connection[content.connection[row]].push(row);
}

const text = (column, row) => content.texts[content[column][row]];
const is_bad = (row) => content.mood[row] === BAD;
const is_gap = (row) => kind[row] === ONCE && ["gap", "silence"].includes(text("what", row));
const lasts_to = (connection) => content.connections[connection].end ?? content.end;

function title_of(row) {
  return [text("what", row), text("topic", row), text("event", row), text("status", row)].filter(Boolean).join(" ");
}

// Rows that belong together, as they have a ref in common: a push, its frame, its reply.
function related(row) {
  if (!by_ref) {
    by_ref = new Map();
    for (let other = 0; other < size; other++) {
      if (!content.ref[other]) continue;
      const key = `${content.connection[other]} ${content.ref[other]}`;
      by_ref.has(key) ? by_ref.get(key).push(other) : by_ref.set(key, [other]);
    }
  }
  return (by_ref.get(`${content.connection[row]} ${content.ref[row]}`) ?? []).filter((other) => other !== row);
}

// The states before and after a row, as flat objects; null where it has none. See `_states` in page.py.
function states(row) {
  if (content.states[row] === 0) return null;
  let state = {}, before = {};
  for (const other of by_connection[content.connection[row]]) {
    const change = content.states[other];
    if (change === 0) continue;
    if (change !== 1 && change.length === 3) state = { ...change[2] };
    if (other === row) before = { ...state };
    if (change !== 1) {
      Object.assign(state, change[0]);
      for (const key of change[1]) delete state[key];
    }
    if (other === row) break;
  }
  return { before, after: state };
}
