// What is seen comes to, where no row is chosen: latencies, what went wrong, gaps and reconnects.

const STEPS = [1, 2, 5];
let measured = null;                // whose latencies are shown, a text of `what`

function summary_parts() {
  const rows = [];
  for (let row = 0; row < size; row++) {
    if (is_shown(row) && begin[row] <= range.to && ends[row] >= range.from && (!matching || matching[row])) rows.push(row);
  }
  const bad = rows.filter((row) => is_bad(row) && kind[row] !== ONCE);
  const events = rows.filter((row) => kind[row] === ONCE);
  const where = matching ? "what matches in this range" : "this range";
  return [
    el("h2", {}, `Summary of ${where}`), counts_table(rows), heading("Latencies"), ...histogram_parts(rows),
    ...(events.length ? [heading("Gaps, reconnects and other events"), links(events)] : []),
    heading("Errors"), bad.length ? links(bad) : el("p", { class: "faint" }, "None."),
  ];
}

function counts_table(rows) {
  const totals = KINDS.map(() => 0);
  for (const row of rows) totals[kind[row]] += 1;
  return listing([["rows", rows.length.toLocaleString("en")], ...KIND_NAMES.map((name, number) => [name, totals[number] ? totals[number].toLocaleString("en") : ""])]);
}

function histogram_parts(rows) {
  const groups = new Map();
  for (const row of rows) {
    if (took[row] < 0 || kind[row] === ONCE) continue;
    const what = text("what", row);
    groups.has(what) ? groups.get(what).push(took[row]) : groups.set(what, [took[row]]);
  }
  if (!groups.size) return [el("p", { class: "faint" }, "Nothing here took time.")];
  const names = [...groups.keys()].sort((a, b) => b.startsWith("client") - a.startsWith("client") || groups.get(b).length - groups.get(a).length);
  const name = names.includes(measured) ? measured : names.includes("client push") ? "client push" : names[0];
  const choice = el("select", { id: "measured", "aria-label": "Whose latencies", onchange: (event) => { measured = event.target.value; show_side(); $("measured").focus(); } },
    ...names.map((each) => el("option", { value: each, selected: each === name }, `${each} (${groups.get(each).length.toLocaleString("en")})`)));
  const values = Float64Array.from(groups.get(name)).sort();
  const at = (share) => values[Math.max(0, Math.ceil(share * values.length) - 1)];
  const told = [["p50", 0.5], ["p90", 0.9], ["p99", 0.99], ["max", 1]].map(([label, share]) => `${label} ${duration(at(share))}`).join("   ");
  return [choice, histogram(values, name), el("p", { class: "faint", id: "quantiles", style: "white-space:pre-wrap" }, told)];
}

// Bars for 1 to 2, 2 to 5, 5 to 10 of each power of ten, from the least value to the most.
function histogram(values, name) {
  const bin = (value) => {
    const power = Math.floor(Math.log10(Math.max(value, 1)) + 1e-12);
    return power * 3 + STEPS.filter((step) => value >= step * 10 ** power).length - 1;
  };
  const low = (number) => STEPS[((number % 3) + 3) % 3] * 10 ** Math.floor(number / 3);
  const first = Math.max(0, bin(values[0])), last = Math.max(first, bin(values.at(-1)));
  const bins = new Array(last - first + 1).fill(0);
  for (const value of values) bins[clamp(bin(value), first, last) - first] += 1;
  const most = Math.max(...bins);
  const brief = (value) => duration(value).replace(/\.0+ /, " ").replace(/(\.\d*?)0+ /, "$1 ");
  const rows = bins.map((its, number) => el("tr", {},
    el("td", { class: "number" }, `${brief(low(first + number))} – ${brief(low(first + number + 1))}`), el("td", { class: "number" }, its.toLocaleString("en")),
    el("td", {}, el("i", { style: `width:${its ? Math.max(1, (100 * its) / most) : 0}%;${its ? "" : "min-width:0"}` }))));
  return el("table", { class: "histogram", id: "histogram" }, el("caption", { class: "hidden" }, `Latencies of ${name}`), ...rows);
}
