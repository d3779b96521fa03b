// What is known of the chosen row.

function show_side() {
  const side = $("side");
  side.replaceChildren(...(chosen === null ? summary_parts() : chosen < 0 ? connection_parts(-1 - chosen) : span_parts(chosen)));
  side.setAttribute("aria-label", chosen === null ? "Summary" : "Details");
  side.scrollTop = 0;
}

const close_button = () => el("button", { class: "close", type: "button", title: "Close (Escape)", "aria-label": "Close the details", onclick: () => choose(null, true) }, "✕");
const heading = (name) => el("h3", {}, name);

function listing(entries) {
  return el("dl", {}, ...entries.filter(([, value]) => value !== "" && value != null).flatMap(([name, value]) => [el("dt", {}, name), el("dd", {}, value)]));
}

const code = (value) => value && el("span", { class: "id" }, value);

function span_parts(row) {
  const its = content.connections[content.connection[row]];
  const name = is_bad(row) ? "bad" : KINDS[kind[row]];
  const status = text("status", row);
  const title = el("h2", { class: "title", style: `--colour:var(--${name})` },
    el("span", { class: "what" }, `${ARROWS[kind[row]]} ${text("what", row)}`), text("topic", row) && el("span", {}, text("topic", row)), text("event", row) && el("span", {}, text("event", row)),
    status && el("span", { class: `badge ${["faint", "good", "bad"][content.mood[row]]}` }, status));
  const parts = [close_button(), title, listing([
    ["took", took[row] >= 0 ? duration(took[row]) : ""],
    ["at", `${seconds(begin[row], 6)} s`],
    ["", moment(begin[row])],
    ["note", text("note", row)],
    ["span", ids[row] === "-" ? "" : code(ids[row])],
    ["connection", its.connection_id && link_to(-1 - content.connection[row], its.connection_id)],
    ["trace", code(its.trace_id)],
  ])];
  const others = related(row);
  if (others.length) parts.push(heading("Same ref"), links(others));
  const state = states(row);
  if (state) parts.push(heading("State"), ...state_parts(state));
  if (content.payload[row]) parts.push(heading(kind[row] === CLIENT && ["ok", "error"].includes(status) ? "Response" : "Payload"), ...value_parts(text("payload", row)));
  if (content.more[row]) parts.push(heading("More"), ...value_parts(text("more", row)));
  return parts.filter(Boolean);
}

function connection_parts(number) {
  const its = content.connections[number];
  const rows = by_connection[number], bad = rows.filter(is_bad);
  const name = its.connection_id ? "connection" : "outside of connections";
  const end = its.reason ?? (its.connection_id ? "not in the recording" : "");
  const parts = [close_button(), el("h2", {}, name), listing([
    ["id", code(its.connection_id)], ["trace", code(its.trace_id)], ["socket", code(its.socket_id)],
    ["generation", its.connection_id && String(its.generation)], ["began", moment(its.start)],
    ["lasted", its.end === null ? "" : duration(its.end - its.start)], ["end", end],
    ["rows", rows.length.toLocaleString("en")], ["errors", bad.length.toLocaleString("en")],
  ])];
  if (bad.length) parts.push(heading("What went wrong"), links(bad));
  if (its.state) parts.push(heading("State"), whole_state(its.state));
  return parts;
}

const link_to = (row, label) => el("button", { type: "button", class: "id", onclick: () => choose(row) }, label);

// Buttons that lead to rows, the first so many of them.
function links(rows, most = 30) {
  const buttons = rows.slice(0, most).map((row) => {
    const line = [text("what", row), text("topic", row), text("event", row), text("status", row)].filter(Boolean).join(" ");
    return el("button", { type: "button", onclick: () => choose(row) },
      el("span", { class: is_bad(row) ? "bad" : "" }, seconds(begin[row])), el("span", { title: line }, line),
      el("span", { class: "faint" }, took[row] >= 0 ? duration(took[row]) : ""));
  });
  const left = rows.length - buttons.length;
  return el("div", { class: "links" }, ...buttons, left > 0 && el("p", { class: "faint" }, `and ${left.toLocaleString("en")} more`));
}
