// The range of time that is looked at, in nanoseconds since the start of the page.

const range = { from: 0, to: 1 };
const whole = { from: 0, to: 1 };
const LEAST = 2000;                 // two microseconds: the shortest spans still have a width then

function set_whole() {
  const first = content.connections.reduce((least, its) => Math.min(least, its.start), begin[0] ?? 0);
  const margin = Math.max((content.end - first) * 0.005, LEAST);
  Object.assign(whole, { from: first - margin, to: content.end + margin });
  Object.assign(range, whole);
}

function look_at(from, to) {
  const length = clamp(to - from, LEAST, whole.to - whole.from);
  const middle = (from + to) / 2;
  range.from = clamp(middle - length / 2, whole.from, whole.to - length);
  range.to = range.from + length;
  range_changed();
}

// Zooms by a factor, below 1 is nearer, around a point that stays where it is.
function zoom(factor, around = (range.from + range.to) / 2) {
  const length = clamp((range.to - range.from) * factor, LEAST, whole.to - whole.from);
  const share = (around - range.from) / (range.to - range.from);
  look_at(around - share * length, around + (1 - share) * length);
}

// Moves by a share of what is seen.
function pan(share) {
  const by = (range.to - range.from) * share;
  look_at(range.from + by, range.to + by);
}

const is_all = () => range.to - range.from >= (whole.to - whole.from) * 0.999;
const look_at_all = () => look_at(whole.from, whole.to);

function look_at_row(row) {
  const [from, to] = extent(row);
  const margin = Math.max((to - from) * 0.6, 20000);
  look_at(from - margin, to + margin);
}

// Moves only if a row would not be seen.
function bring_into_range(row) {
  const [from, to] = extent(row);
  if (from < range.to && to > range.from) return;
  const length = range.to - range.from;
  look_at(from - length / 3, from + (2 * length) / 3);
}

// A row is a span's number, or -1 and less for connections.
function extent(row) {
  return row < 0 ? [content.connections[-1 - row].start, lasts_to(-1 - row)] : [begin[row], ends[row]];
}

// Points of time for an axis: [nanoseconds, label], at round numbers.
function ticks(width) {
  const rough = (range.to - range.from) / Math.max(2, width / 85);
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = power * [1, 2, 5, 10].find((factor) => power * factor >= rough);
  const places = Math.max(0, Math.ceil(9 - Math.log10(step)));
  const found = [];
  for (let at = Math.ceil(range.from / step); at * step < range.to; at++) found.push([at * step, `${seconds(at * step, places)} s`]);
  return found;
}
