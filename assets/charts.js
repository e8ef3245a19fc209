// The live charts of one run, with others laid over it: keeps their rows, asks for those that are missing, draws them with Plotly.
//
// Gradio runs this file as the body of a function, once per component, and hands in
//   element  the component's node; studio/ui/charts.py has put one <figure> per panel into it
//   props    value {run, count, others: {run: count}} follows the runs; panels and library are set once
//   server   server.fresh({run, have}) -> {rows, total}: the rows from index `have` on
//   watch    calls back when Python has changed a prop

const SMOOTH_FROM = 30;      // points; fewer are drawn as they are, each with a mark
const PIXELS_A_BUCKET = 3;   // each bucket keeps its lowest and highest point, so no spike is lost
const TICKS = 7;             // marks on the axis of steps
const CROWD = 25;            // held-out points; more get smaller marks
const OVERLAID = ["dash", "dot", "dashdot"];  // no more runs are laid over than this tells apart
const RETRY_AFTER = 3000;    // milliseconds
const DRAWING_SHARE = 0.1;   // of the time: a run that computes on the same cores is slowed down by drawing
const LONGEST_REST = 1000;   // milliseconds

const frame = element.querySelector(".charts");
const panels = props.panels.map((spec) => {
  const figure = element.querySelector(`#chart-${spec.id}`);
  const part = (name) => figure.querySelector(`.${name}`);
  return { ...spec, plot: part("plot"), latest: part("latest"), reset: part("reset"), save: part("save"),
           behind: false,    // there are rows that it does not show yet
           stale: false,     // it is drawn in one of the next frames
           drawn: 0,         // when it was drawn
           inSight: false };
});

let shown = [begun("", 0)];              // the run in view, then those laid over it
let fetching = false;
let retry = 0;
let nextFrame = 0;
let rest = 0;
let spent = 0;                           // milliseconds of drawing since the last rest
let views = 0;                           // runs, or logs begun afresh, that were in view so far

// --- rows -----------------------------------------------------------------------------------------------------------

// What is known of a run: rows fetched (the next request starts there), of `count` that there are.
function begun(run, count) {
  return { run, count, received: 0, rows: { train: [], eval: [] } };
}

function append(track, row) {
  const rows = track.rows[row.split];
  // A resumed run takes some steps a second time. The later account holds.
  while (rows.length && rows.at(-1).step >= row.step) rows.pop();
  rows.push(row);
}

// The runs that props.value asks for. Of one with fewer rows than we hold, the log was begun afresh under the same name.
function wanted() {
  const { run, count, others } = props.value ?? { run: "", count: 0 };
  return [[run, count], ...Object.entries(others ?? {})].map(([name, many]) => {
    const known = shown.find((track) => track.run === name && track.received <= many);
    return known ? Object.assign(known, { count: many }) : begun(name, many);
  });
}

// Brings the rows up to props.value. Never two requests at once: a change during one is seen when it ends.
async function follow() {
  if (fetching || !element.offsetWidth) return;  // in a tab that is not shown; ResizeObserver calls again
  fetching = true;
  const before = shown, had = shown.map((track) => track.received);
  try {
    while (true) {
      shown = wanted();
      const track = shown.find((each) => each.received < each.count);
      if (!track) break;
      const fresh = await server.fresh({ run: track.run, have: track.received });
      if (!fresh) {                              // Gradio reports a failed request as undefined
        clearTimeout(retry);
        retry = setTimeout(follow, RETRY_AFTER);
        break;
      }
      if (!fresh.rows.length) break;
      for (const row of fresh.rows) append(track, row);
      track.received += fresh.rows.length;
    }
  } finally {
    fetching = false;
  }
  frame.dataset.state = shown[0].received ? "drawn" : "empty";
  if (shown[0] !== before[0]) showAllSteps();
  const same = shown.length === before.length && shown.every((track, place) => track === before[place]);
  if (!same) drawAll();  // other runs, or one begun afresh
  else if (shown.some((track, place) => track.received > had[place])) drawNews();
}

// What was zoomed to in one run means nothing in the next.
function showAllSteps() {
  views += 1;
  for (const panel of panels) {
    panel.view = null;
    panel.reset.hidden = true;
  }
}

// --- numbers --------------------------------------------------------------------------------------------------------

// A line's value in a row, or null for a gap. `minus` makes it the difference of two metrics.
function valueOf(line, row) {
  const value = row.metrics[line.metric] ?? null;
  if (!line.minus || value === null) return value;
  const other = row.metrics[line.minus] ?? null;
  return other === null ? null : value - other;
}

// Exponential moving average that starts at the first value. Its span grows with the run, but in leaps, so that the
// drawn past stays where it is most of the time.
function smoothed(values) {
  const span = Math.min(160, 8 * 2 ** Math.max(0, Math.floor(Math.log2(values.length / 100))));
  const share = 2 / (span + 1);
  let mean = 0, weight = 0;
  return values.map((value) => {
    if (value === null) return null;
    mean += share * (value - mean);
    weight += share * (1 - weight);
    return mean / weight;
  });
}

// Which rows to draw so that `width` pixels show all there is to see: per bucket the lowest and the highest of every
// line. One choice for all lines of a panel, because the hover box lists only those that share a step.
function chosenRows(track, columns, range, width) {
  const [from, to] = visible(track, range);
  const size = Math.ceil((to - from) / Math.max(1, width / PIXELS_A_BUCKET));
  if (size < 2) return Array.from({ length: to - from }, (_, i) => from + i);
  const keep = new Set([from, to - 1]);
  for (let start = from; start < to; start += size) {
    for (const column of columns) {
      let low = null, high = null;
      for (let i = start; i < Math.min(start + size, to); i++) {
        if (column[i] === null) {
          if (i === from || column[i - 1] !== null) keep.add(i);   // a gap stays a gap, by its first row
          continue;
        }
        if (low === null || column[i] < column[low]) low = i;
        if (high === null || column[i] > column[high]) high = i;
      }
      if (low !== null) keep.add(low).add(high);
    }
  }
  return [...keep].sort((a, b) => a - b);
}

// The rows inside the zoomed range, and one more on either side so that lines run to the edge.
function visible(track, range) {
  if (!range) return [0, track.length];
  const before = track.findIndex((row) => row.step >= range[0]);
  const after = track.findIndex((row) => row.step > range[1]);
  return [Math.max(0, (before < 0 ? track.length : before) - 1), after < 0 ? track.length : Math.min(track.length, after + 1)];
}

// --- drawing --------------------------------------------------------------------------------------------------------

// The library is 5 MB, so it is fetched when there is something to draw. One request for all components of the page.
function library() {
  window.plotlyLoading ??= new Promise((loaded, failed) => {
    const { root, api_prefix } = window.gradio_config;
    const script = document.createElement("script");
    script.src = `${root}${api_prefix}/file=${encodeURI(props.library)}`;
    script.onload = loaded;
    script.onerror = () => {
      delete window.plotlyLoading;
      failed(new Error("The charts could not be loaded. Reload the page."));
    };
    document.head.append(script);
  });
  return window.plotlyLoading;
}

// All anew: another run, another size, other colours.
function drawAll() {
  for (const panel of panels) panel.stale = true;
  loaded(schedule);
}

function drawNews() {
  for (const panel of panels) panel.behind = true;
  loaded(nextRound);
}

function loaded(then) {
  if (!shown[0].received) return;
  library().then(then, (error) => {
    frame.querySelector(".empty").textContent = error.message;
    frame.dataset.state = "empty";
  });
}

// New rows are drawn in rounds: what is in sight, and one panel of those that are not, so that none is old for long.
function nextRound() {
  if (rest || nextFrame) return;  // what is behind then has its turn after the rest
  const behind = panels.filter((each) => each.behind && each.plot.clientWidth);
  const seen = behind.filter((each) => each.inSight || !each.plot.data);
  const unseen = behind.filter((each) => !seen.includes(each)).sort((one, other) => one.drawn - other.drawn);
  for (const panel of [...seen, ...unseen.slice(0, 1)]) panel.stale = true;
  schedule();
}

// One panel per frame: eight at once would make the page stutter.
function schedule() {
  nextFrame ||= requestAnimationFrame(() => {
    nextFrame = 0;
    const panel = panels.find((each) => each.stale && each.plot.clientWidth);
    if (!panel) return takeRest();
    panel.stale = panel.behind = false;
    const began = performance.now();
    draw(panel);
    panel.drawn = performance.now();
    spent += panel.drawn - began;
    schedule();
  });
}

function takeRest() {
  if (rest || !spent) return;
  rest = setTimeout(() => {
    rest = 0;
    nextRound();
  }, Math.min(spent / DRAWING_SHARE, LONGEST_REST));
  spent = 0;
}

function draw(panel) {
  const style = getComputedStyle(element);
  const look = (name) => style.getPropertyValue(`--${name}`).trim();
  const [{ rows }, ...others] = shown;
  const columns = panel.lines.map((line) => rows.train.map((row) => valueOf(line, row)));
  const picked = chosenRows(rows.train, columns, panel.view, panel.plot.clientWidth);
  const held = panel.lines.filter((line) => line.held_out && rows.eval.some((row) => valueOf(line, row) !== null));
  const traces = [...panel.lines.flatMap((line, index) => trainTraces(panel, line, columns[index], picked, look)),
                  ...held.map((line, index) => heldOutTrace(panel, line, index === 0, look)),
                  ...others.map((track, index) => overlaidTrace(panel, track, index, look))];
  const first = !panel.plot.data;
  window.Plotly.react(panel.plot, traces, layout(panel, traces, look), { displayModeBar: false, doubleClick: "autosize" });
  if (first) panel.plot.on("plotly_relayout", () => zoomed(panel));
  describe(panel);
}

// The noisy line, faint, and the smoothed one over it; both always there, so that Plotly knows them again.
function trainTraces(panel, line, own, picked, look) {
  const { rows } = shown[0];
  const smooth = panel.smooth && rows.train.length > SMOOTH_FROM;
  const drawn = smooth ? smoothed(own) : own;
  const steps = picked.map((i) => rows.train[i].step);
  const color = look(`chart-${line.ink}`);
  const shared = { type: "scatter", x: steps, legendgroup: line.name, connectgaps: false };
  return [
    { ...shared, uid: `${line.name}-raw`, y: smooth ? picked.map((i) => own[i]) : [], mode: "lines", opacity: 0.3,
      line: { color, width: 1 }, showlegend: false, hoverinfo: "skip" },
    { ...shared, uid: line.name, name: line.name, y: picked.map((i) => drawn[i]), customdata: picked.map((i) => own[i]),
      mode: rows.train.length > SMOOTH_FROM ? "lines" : "lines+markers", line: { color, width: 2.25, dash: line.dash },
      marker: { color, size: 5 }, hovertemplate: `${line.name}: %{customdata:${panel.format}}<extra></extra>` },
  ];
}

// Diamonds. One entry in the legend stands for all held-out curves of a panel.
function heldOutTrace(panel, line, listed, look) {
  const { rows } = shown[0];
  const color = look(line.ink === "main" ? "chart-held-out" : `chart-${line.ink}`);
  const told = panel.lines.length > 1 ? `${line.name}, held-out` : "held-out";
  return {
    type: "scatter", uid: `${line.name}-held-out`, name: "held-out", legendgroup: "held-out", showlegend: listed,
    x: rows.eval.map((row) => row.step), y: rows.eval.map((row) => valueOf(line, row)), connectgaps: false,
    mode: "lines+markers", line: { color, width: 1.25, dash: line.dash },
    marker: { color: look("chart-paper"), size: rows.eval.length > CROWD ? 4 : 8, symbol: "diamond",
              line: { color, width: rows.eval.length > CROWD ? 1 : 2 } },
    hovertemplate: `${told}: %{y:${panel.format}}<extra></extra>`,
  };
}

// A run's name from where it begins to differ from that of the run in view: legends are narrow.
function short(run) {
  const words = run.split("-"), own = shown[0].run.split("-");
  const same = words.findIndex((word, place) => word !== own[place]);
  return `run ${words.slice(Math.max(0, same)).join("-")}`;
}

// The panel's first curve of another run; more of them would hide those of the run in view.
function overlaidTrace(panel, { run, rows }, index, look) {
  const own = rows.train.map((row) => valueOf(panel.lines[0], row));
  const drawn = panel.smooth && own.length > SMOOTH_FROM ? smoothed(own) : own;
  const picked = chosenRows(rows.train, [drawn], panel.view, panel.plot.clientWidth);
  return {
    type: "scatter", uid: `over-${run}`, name: short(run), x: picked.map((i) => rows.train[i].step), y: picked.map((i) => drawn[i]),
    customdata: picked.map((i) => own[i]), connectgaps: false, mode: "lines",
    line: { color: look(`chart-over-${index + 1}`), width: 1.75, dash: OVERLAID[index] },
    hovertemplate: `${short(run)}: %{customdata:${panel.format}}<extra></extra>`,
  };
}

function layout(panel, traces, look) {
  const named = traces.filter((trace) => trace.showlegend !== false).length > 1;
  const axis = { gridcolor: look("chart-grid"), linecolor: look("chart-grid"), zeroline: false, automargin: true };
  const box = { bgcolor: look("chart-paper"), bordercolor: look("chart-grid"), font: { color: look("chart-ink") } };
  const touch = matchMedia("(pointer: coarse)").matches;
  return {
    uirevision: views,  // while it is the same run, zoom and curves switched off in the legend stay
    width: panel.plot.clientWidth, height: panel.plot.clientHeight,
    margin: { l: 8, r: 10, t: named ? 34 : 10, b: 8 },
    paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
    font: { family: getComputedStyle(element).fontFamily, size: 12, color: look("chart-ink") },
    hovermode: "x unified", hoverlabel: box, dragmode: touch ? false : "zoom",  // a finger scrolls the page
    showlegend: named,
    legend: { orientation: "h", x: 0, y: 1.02, yanchor: "bottom", bgcolor: "rgba(0,0,0,0)", font: { size: 11 } },
    xaxis: { ...axis, tickformat: ",d", hoverformat: ",d", title: { text: "step", standoff: 6 },
             unifiedhovertitle: { text: "step %{x:,d}" }, ...(stepsInView(panel, traces) < TICKS ? { dtick: 1 } : { nticks: TICKS }) },
    // Only steps are zoomed; heights then fit what is in view.
    yaxis: { ...axis, fixedrange: true, nticks: 6, tickformat: panel.ticks, ...heights(panel) },
  };
}

// How many steps lie between the ends of the axis: of few, Plotly would mark halves too, which are written as whole ones.
function stepsInView(panel, traces) {
  if (panel.view) return panel.view[1] - panel.view[0];
  const steps = traces.flatMap(({ x }) => [x[0], x.at(-1)]).filter((step) => step !== undefined);
  return Math.max(...steps) - Math.min(...steps);
}

// A little air beyond the limits, else a line at 100 % is cut in half.
function heights({ limits }) {
  if (!limits) return {};
  const air = (limits[1] - limits[0]) / 25;
  return { range: [limits[0] - air, limits[1] + air] };
}

// --- words ----------------------------------------------------------------------------------------------------------

function figure(value) {
  return value === 0 ? "0" : Math.abs(value) < 0.001 ? value.toExponential(1) : value.toPrecision(3);
}

// The newest value of each curve: beside the title for the eye, on the drawing for a screen reader.
function describe(panel) {
  const newest = (line, track) => track.findLast((row) => valueOf(line, row) !== null);
  const say = (line, track, name) => {
    const row = newest(line, track);
    return row ? [`${name} ${figure(valueOf(line, row))} at step ${row.step}`] : [];
  };
  const [{ rows }, ...others] = shown;
  const said = panel.lines.flatMap((line) => [
    ...say(line, rows.train, line.name), ...(line.held_out ? say(line, rows.eval, `${line.name} held-out`) : [])]);
  said.push(...others.flatMap((track) => say(panel.lines[0], track.rows.train, `${panel.lines[0].name} of ${track.run}`)));
  panel.plot.setAttribute("aria-label", `${panel.title}: ${said.join(", ") || "no points yet"}`);
  const row = newest(panel.lines[0], rows.train);
  panel.latest.textContent = row ? figure(valueOf(panel.lines[0], row)) : "";
}

// --- what the person does -------------------------------------------------------------------------------------------

function zoomed(panel) {
  const { autorange, range } = panel.plot.layout.xaxis;
  panel.view = autorange || !range ? null : [...range];
  panel.reset.hidden = !panel.view;
  panel.stale = true;   // finer points for the narrower range, or all again
  schedule();
}

for (const panel of panels) {
  panel.reset.addEventListener("click", () => window.Plotly.relayout(panel.plot, { "xaxis.autorange": true }));
  panel.save.addEventListener("click", () => {
    if (!panel.plot.data) return;
    const paper = getComputedStyle(element).getPropertyValue("--chart-paper").trim();
    const picture = { ...panel.plot.layout, paper_bgcolor: paper, title: { text: `${panel.title} · ${shown[0].run}` },
                      margin: { l: 20, r: 20, t: 80, b: 20 }, width: 1000, height: 560 };
    window.Plotly.downloadImage({ data: panel.plot.data, layout: picture }, { format: "png", scale: 2, width: 1000, height: 560,
                                                                              filename: `${shown[0].run}-${panel.id}` });
  });
}

const sight = new IntersectionObserver((changes) => {
  for (const { target, isIntersecting } of changes) {
    const panel = panels.find((each) => each.plot === target);
    panel.inSight = isIntersecting;
    if (isIntersecting && panel.behind) panel.stale = true;
  }
  if (panels.some((each) => each.stale)) loaded(schedule);
});
for (const panel of panels) sight.observe(panel.plot);

watch("value", follow);
new ResizeObserver(() => { follow(); drawAll(); }).observe(element);
new MutationObserver(drawAll).observe(document.body, { attributeFilter: ["class"] });  // light and dark
follow();
