// The list: connections and their spans, of which only those rows exist that are seen.

const ROW = 24;                     // pixels, as in the style
const PAGE = 1000;                  // rows that are printed
const shown = { kinds: [true, true, true, true, true], errors: false, only: false };
const folded = new Set();           // connections whose spans are not listed
let listed = [];                    // rows: spans' numbers, and -1 and less for connections
let places = new Map();             // row → its place in `listed`
let chosen = null;
let in_range = 0;

const is_shown = (row) => shown.kinds[kind[row]] && (!shown.errors || is_bad(row)) && (!shown.only || !matching || matching[row]);

function make_list() {
  const anchor = anchor_row();
  listed = [];
  matches = [];
  in_range = 0;
  content.connections.forEach((connection, number) => {
    const rows = [];
    for (const row of by_connection[number]) {
      if (begin[row] > range.to && !matching) break;
      if (!is_shown(row)) continue;
      if (matching?.[row]) matches.push(row);
      if (begin[row] <= range.to && ends[row] >= range.from) rows.push(row);
    }
    const seen = connection.start <= range.to && lasts_to(number) >= range.from;
    if (!rows.length && (!seen || shown.only || shown.errors)) return;
    in_range += rows.length;
    listed.push(-1 - number);
    if (!folded.has(number)) for (const row of rows) listed.push(row);
  });
  places = new Map(listed.map((row, place) => [row, place]));
  $("rows").style.height = `${listed.length * ROW}px`;
  $("nothing").hidden = in_range > 0 || listed.length > 0;
  if (anchor && places.has(anchor.row)) $("scroller").scrollTop = places.get(anchor.row) * ROW - anchor.offset;
  draw_rows();
}

// The row that is to stay where it is when the list changes: the chosen one, if it is seen, else the topmost.
function anchor_row() {
  const top = $("scroller").scrollTop;
  const place = chosen === null ? undefined : places.get(chosen);
  if (place !== undefined && place * ROW >= top && place * ROW < top + $("scroller").clientHeight) return { row: chosen, offset: place * ROW - top };
  const row = listed[Math.floor(top / ROW)];
  return row === undefined || top === 0 ? null : { row, offset: Math.floor(top / ROW) * ROW - top };
}

function draw_rows() {
  const scroller = $("scroller");
  const first = Math.max(0, Math.floor(scroller.scrollTop / ROW) - 4);
  const last = Math.min(listed.length, Math.ceil((scroller.scrollTop + scroller.clientHeight) / ROW) + 4);
  put_rows(first, last);
  draw_axis();
}

function put_rows(first, last) {
  const rows = [];
  for (let place = first; place < last; place++) rows.push(row_element(listed[place], place));
  $("rows").replaceChildren(...rows);
  const scroller = $("scroller");
  scroller.setAttribute("aria-rowcount", listed.length);
  if (chosen !== null && document.getElementById(`r${chosen}`)) scroller.setAttribute("aria-activedescendant", `r${chosen}`);
  else scroller.removeAttribute("aria-activedescendant");
}

function row_element(row, place) {
  const state = row === chosen ? " chosen" : "";
  const attributes = { id: `r${row}`, role: "row", "aria-rowindex": place + 1, "aria-selected": row === chosen, style: `top:${place * ROW}px` };
  if (row < 0) {
    return el("div", { ...attributes, class: `row connection${state}`, "data-row": row }, ...connection_cells(-1 - row));
  }
  const mark = !matching ? "" : matching[row] ? " match" : " dim";
  const name = is_bad(row) ? "bad" : KINDS[kind[row]];
  attributes.style += `;--colour:var(--${name})`;
  return el("div", { ...attributes, class: `row${state}${mark}`, "data-row": row }, ...span_cells(row));
}

const cell = (name, ...children) => el("span", { class: name, role: "gridcell" }, ...children);

function span_cells(row) {
  const status = text("status", row), topic = text("topic", row), event = text("event", row);
  const subject = cell("subject", topic && el("span", { class: "topic" }, topic), event && el("span", { class: "event" }, event));
  if (status) subject.append(el("span", { class: `status ${["faint", "good", "bad"][content.mood[row]]}` }, status));
  if (!topic && !event && text("note", row)) subject.append(el("span", { class: "faint" }, text("note", row)));
  subject.title = title_of(row);
  const length = took[row] >= 0 ? duration(took[row]) : "";
  return [
    cell("time", seconds(begin[row])), cell("arrow", ARROWS[kind[row]]), cell("what", text("what", row)), subject,
    cell("took", length), cell("track", bar(begin[row], ends[row], bar_class(row))),
  ];
}

function bar_class(row) {
  if (is_gap(row)) return "gap";
  if (took[row] < 0 && text("status", row) !== "unfinished") return "mark";
  return kind[row] === ONCE ? "wait" : text("status", row) === "unfinished" ? "open" : "";
}

function connection_cells(number) {
  const its = content.connections[number];
  const end = its.reason ?? (its.connection_id ? "not ended" : "");
  const name = its.connection_id ? `connection ${its.connection_id.slice(0, 8)}` : "outside of connections";
  const more = [end, its.connection_id && `generation ${its.generation}`, count(by_connection[number].length, "row")].filter(Boolean).join(", ");
  const track = cell("track", bar(its.start, lasts_to(number), ""));
  track.style.setProperty("--colour", `var(--${!its.reason || its.reason === "closed_by_client" ? "here" : "bad"})`);
  const subject = cell("subject", name, el("span", { class: "more" }, more));
  subject.title = `${name}: ${more}`;
  return [
    cell("time", seconds(its.start)), cell("arrow", folded.has(number) ? "▸" : "▾"),
    subject, cell("took", its.end === null ? "" : duration(its.end - its.start)), track,
  ];
}

// A bar from one point of time to another; what is outside of the range is cut off, as elements cannot be that wide.
function bar(from, to, name) {
  const percent = (at) => (100 * (at - range.from)) / (range.to - range.from);
  const left = clamp(percent(from), -1, 101), right = clamp(percent(to), -1, 101);
  const width = name === "mark" ? "" : `;width:${right - left}%`;
  return el("i", { class: name, style: `left:${left}%${width}` });
}

function draw_axis() {
  const scroller = $("scroller"), axis = $("axis");
  $("head").style.paddingRight = `${scroller.offsetWidth - scroller.clientWidth}px`;
  const { left, width } = axis.getBoundingClientRect();
  const from = left - scroller.getBoundingClientRect().left;
  const found = ticks(width).map(([at, label]) => [((at - range.from) / (range.to - range.from)) * width, label]);
  axis.replaceChildren(...found.filter(([x]) => x < width - 40).map(([x, label]) => el("span", { style: `left:${x}px` }, label)));
  const height = scroller.clientHeight;
  $("grid").replaceChildren(...found.map(([x]) => el("i", { style: `left:${from + x}px;height:${height}px` })));
}

// Chooses a row, shows its details and brings it into view; null chooses none.
function choose(row, focus = false) {
  chosen = row;
  if (row !== null) {
    if (row >= 0) folded.delete(content.connection[row]);
    bring_into_range(row);
    if (!places.has(row)) make_list();
    const scroller = $("scroller"), top = (places.get(row) ?? 0) * ROW;
    if (top < scroller.scrollTop) scroller.scrollTop = top - 2 * ROW;
    if (top + ROW > scroller.scrollTop + scroller.clientHeight) scroller.scrollTop = top - scroller.clientHeight + 3 * ROW;
  }
  draw_rows();
  show_side();
  if (focus) $("scroller").focus({ preventScroll: true });
}

// Chooses the row so many places further down.
function step(by) {
  if (!listed.length) return;
  const place = chosen === null ? -1 : (places.get(chosen) ?? -1);
  choose(listed[clamp(place < 0 ? (by > 0 ? by - 1 : 0) : place + by, 0, listed.length - 1)]);
}

function fold(number) {
  folded.has(number) ? folded.delete(number) : folded.add(number);
  make_list();
}
