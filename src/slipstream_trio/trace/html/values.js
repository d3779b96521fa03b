// Values as they are shown: JSON that may have been cut off, and the difference of two states.

const TOKEN = /"(?:[^"\\]|\\.)*(?:"|$)|[{}[\],:]|[^\s"{}[\],:]+/gs;

// Returns JSON, given as text in one line, in many lines and colours. It is not parsed, as numbers could lose digits and
// the text may have been cut off.
function pretty(text) {
  const pre = el("pre", { tabindex: 0 });
  const tokens = text.match(TOKEN) ?? [];
  let depth = 0;
  const line = () => pre.append(`\n${"  ".repeat(Math.min(depth, 40))}`);
  tokens.forEach((token, place) => {
    const next = tokens[place + 1];
    if (token === "{" || token === "[") {
      depth += 1;
      pre.append(token);
      if (next !== "}" && next !== "]") line();
    } else if (token === "}" || token === "]") {
      depth -= 1;
      if (tokens[place - 1] !== "{" && tokens[place - 1] !== "[") line();
      pre.append(token);
    } else if (token === ",") {
      pre.append(",");
      line();
    } else if (token === ":") pre.append(": ");
    else pre.append(el("span", { class: token[0] !== '"' ? "word" : next === ":" ? "key" : "text" }, token));
  });
  return pre;
}

// A text that was cut off ends in "… (1,234 characters)".
function value_parts(text) {
  const [, json, cut] = text.match(/^(.*?)(…? ?\([\d,]+ characters\))?$/s);
  return [pretty(json), cut && el("p", { class: "faint" }, `${cut.replace(/^… ?/, "")} in all, cut off here`)];
}

const short = (value) => (value === undefined ? "–" : typeof value === "string" ? value : JSON.stringify(value));

function state_parts({ before, after }) {
  const keys = [...new Set([...Object.keys(before), ...Object.keys(after)])];
  const differ = keys.filter((key) => JSON.stringify(before[key]) !== JSON.stringify(after[key]));
  const rows = differ.map((key) =>
    el("tr", { class: "difference" }, el("td", {}, key), el("td", { class: "before" }, short(before[key])), el("td", { class: "after" }, short(after[key]))));
  const table = el("table", { id: "difference" }, el("tr", {}, ...["", "before", "after"].map((name) => el("th", { scope: "col" }, name))), ...rows);
  return [differ.length ? table : el("p", { class: "faint", id: "difference" }, "It stays as it was."), whole_state(after)];
}

function whole_state(state) {
  const rows = Object.entries(state).map(([key, value]) => el("tr", {}, el("td", {}, key), el("td", {}, short(value))));
  return el("details", {}, el("summary", {}, `All of the state (${rows.length} values)`), el("table", {}, ...rows));
}
