"use strict";
// Draws the charts of a quickstudy report to the width at hand, sorts its tables, plays its films and its 3D replays.

const PALETTE = ["--c0", "--c1", "--c2", "--c3", "--c4", "--c5"];
const MARKS = ["circle", "square", "triangle", "diamond"];

function make(tag, attributes, parent, text) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  if (text !== undefined) element.textContent = text;
  if (parent) parent.append(element);
  return element;
}

function show(value, percent) {
  if (percent) return `${(100 * value).toFixed(1)} %`;
  const size = Math.abs(value);
  if (size >= 1000) return Math.round(value).toLocaleString("en");
  return value === 0 ? "0" : String(Number(value.toPrecision(3)));
}

function niceTicks(low, high, wanted) {
  const raw = (high - low || 1) / wanted, power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 5, 10].map(m => m * power).find(s => s >= raw);
  const ticks = [];
  for (let t = Math.ceil(low / step - 1e-9) * step; t <= high + step * 1e-6; t += step) ticks.push(Number(t.toPrecision(12)));
  return ticks;
}

function logTicks(low, high, room) {
  const ticks = [];
  for (let p = Math.floor(Math.log10(low)); p <= Math.ceil(Math.log10(high)); p++)
    for (const m of room && high / low < 200 ? [1, 2, 5] : [1]) {
      const t = m * 10 ** p;
      if (t >= low * 0.999 && t <= high * 1.001) ticks.push(t);
    }
  return ticks;
}

// A method keeps its colour and its mark from chart to chart; "maml, seed 1" has those of "maml".
const looks = {true: new Map(), false: new Map()};
const outcomes = new Map();
function outcomeLook(name) {
  if (!outcomes.has(name)) outcomes.set(name, outcomes.size ? `var(${PALETTE[[1, 5, 3, 4, 0][(outcomes.size - 1) % 5]]})` : "var(--good)");
  return {colour: outcomes.get(name)};
}
function lookOf(series) {
  const known = looks[Boolean(series.baseline)], name = series.name.split(",")[0];
  if (!known.has(name)) known.set(name, known.size);
  const place = known.get(name);
  if (series.baseline) return {colour: "var(--grey)", mark: MARKS[place % 4], dash: ["6 4", "2 3", "9 3 2 3"][place % 3]};
  return {colour: `var(${PALETTE[place % 6]})`, mark: MARKS[place % 4], dash: place < 6 ? "" : "7 3"};
}

class Chart {
  constructor(figure) {
    this.figure = figure;
    this.data = JSON.parse(figure.querySelector("script").textContent);
    this.room = figure.querySelector(".drawing");
    this.tip = figure.querySelector(".tip");
    this.hidden = new Set();
    this.looks = this.look();
    if (this.data.kind !== "bars" && this.data.series.length > 1) this.legend();
    new ResizeObserver(() => this.draw()).observe(this.room);
    this.draw();
  }

  look() {
    return this.data.series.map(series => this.data.kind === "stack" ? outcomeLook(series.name) : lookOf(series));
  }

  legend() {
    const list = this.figure.querySelector(".legend");
    this.data.series.forEach((series, i) => {
      const button = document.createElement("button");
      button.type = "button";
      button.setAttribute("aria-pressed", "true");
      const key = make("svg", {width: 26, height: 12, "aria-hidden": "true"}, null);
      const colour = this.looks[i].colour;
      if (this.data.kind === "stack") make("rect", {x: 4, y: 0, width: 12, height: 12, style: `fill:${colour}`}, key);
      else {
        make("line", {x1: 0, x2: 26, y1: 6, y2: 6, style: `stroke:${colour}`, "stroke-width": 2, "stroke-dasharray": this.looks[i].dash}, key);
        this.mark(key, 13, 6, this.looks[i], 3.5);
      }
      button.append(key, series.name);
      button.addEventListener("click", () => {
        const on = this.hidden.delete(i) || (this.hidden.add(i), false);
        button.setAttribute("aria-pressed", String(on));
        this.draw();
      });
      list.append(button);
    });
  }

  mark(parent, x, y, look, r) {
    const style = `fill:${look.colour}`;
    if (look.mark === "square") return make("rect", {x: x - r, y: y - r, width: 2 * r, height: 2 * r, style}, parent);
    if (look.mark === "triangle") return make("path", {d: `M${x} ${y - 1.2 * r}L${x + 1.2 * r} ${y + r}L${x - 1.2 * r} ${y + r}Z`, style}, parent);
    if (look.mark === "diamond") return make("path", {d: `M${x} ${y - 1.3 * r}L${x + 1.3 * r} ${y}L${x} ${y + 1.3 * r}L${x - 1.3 * r} ${y}Z`, style}, parent);
    return make("circle", {cx: x, cy: y, r, style}, parent);
  }

  draw() {
    const width = Math.floor(this.room.clientWidth);
    if (!width || width === this.width && this.drawnHidden === this.hidden.size + "/" + [...this.hidden]) return;
    this.width = width;
    this.drawnHidden = this.hidden.size + "/" + [...this.hidden];
    this.points = [];
    const {kind} = this.data;
    const rows = kind === "stack" ? this.data.categories.length : this.data.series.length;
    const flat = kind === "bars" || kind === "stack";
    this.height = flat ? 34 + 27 * rows : Math.max(230, Math.min(320, width * 0.62));
    const svg = make("svg", {viewBox: `0 0 ${width} ${this.height}`, width, height: this.height, tabindex: 0, role: "img", "aria-label": this.figure.dataset.alt});
    if (flat) this.bars(svg); else this.lines(svg);
    this.room.replaceChildren(svg);
    this.listen(svg);
  }

  axis(svg, x, left, right, bottom, top, ticks, percent) {
    for (const t of ticks) {
      make("line", {x1: x(t), x2: x(t), y1: top, y2: bottom, class: "grid"}, svg);
      make("text", {x: x(t), y: bottom + 16, "text-anchor": "middle"}, svg, percent ? Math.round(100 * t) : show(t));
    }
  }

  bars(svg) {
    const {series, kind, percent, categories, y} = this.data;
    const names = kind === "stack" ? categories : series.map(s => s.name);
    const left = Math.min(0.42 * this.width, 12 + 7.2 * Math.max(...names.map(n => n.length)));
    const bottom = this.height - 34, right = this.width - (kind === "stack" ? 14 : 52);
    const ends = series.flatMap(s => [...s.y, ...s.low, ...s.high]);
    const low = percent ? 0 : Math.min(0, ...ends), high = percent ? 1 : Math.max(0, ...ends) || (low < 0 ? 0 : 1);
    const x = v => left + (right - left) * (v - low) / (high - low);
    this.axis(svg, x, left, right, bottom, 0, niceTicks(low, high, this.width < 500 ? 3 : 5), percent);
    if (low < 0) make("line", {x1: x(0), x2: x(0), y1: 0, y2: bottom, class: "axis"}, svg);
    if (this.data.even) make("line", {x1: x(0.5), x2: x(0.5), y1: 0, y2: bottom, class: "even"}, svg);
    make("text", {x: (left + right) / 2, y: this.height - 2, "text-anchor": "middle", class: "label"}, svg, percent ? `${y}, %` : y);
    names.forEach((name, row) => {
      const middle = 4 + 27 * row + 11;
      const text = make("text", {x: left - 8, y: middle + 4, "text-anchor": "end", class: "name"}, svg, name);
      const most = Math.floor((left - 10) / 7);
      const [first, ...rest] = name.split(", "); // a long name goes on in a second line
      if (name.length > most && rest.length) {
        text.setAttribute("y", middle - 2);
        text.textContent = first;
        make("tspan", {x: left - 8, dy: 12, class: "label"}, text, rest.join(", "));
      } else if (name.length > most) text.textContent = name.slice(0, most - 1) + "…";
      if (kind === "stack") {
        let start = 0;
        series.forEach((s, i) => {
          if (this.hidden.has(i) || !s.y[row]) return;
          make("rect", {x: x(start), y: middle - 9, width: Math.max(0.5, x(start + s.y[row]) - x(start)), height: 18, style: `fill:${this.looks[i].colour}`, class: "part"}, svg);
          this.points.push({x: x(start + s.y[row] / 2), y: middle, text: `${name}: ${s.name} ${show(s.y[row], percent)}`});
          start += s.y[row];
        });
        return;
      }
      const s = series[row], value = s.y[0], end = s.high.length ? s.high[0] : value;
      make("rect", {x: x(Math.min(0, value)), y: middle - 8, width: Math.abs(x(value) - x(0)), height: 16, style: `fill:${this.looks[row].colour}`, class: s.baseline ? "bar pale" : "bar"}, svg);
      if (s.low.length) make("path", {d: `M${x(s.low[0])} ${middle}H${x(s.high[0])}M${x(s.low[0])} ${middle - 4}v8M${x(s.high[0])} ${middle - 4}v8`, class: "whisker"}, svg);
      make("text", {x: Math.max(x(0), x(value), x(end)) + 6, y: middle + 4, class: "value"}, svg, percent ? (100 * value).toFixed(1) : show(value));
      const bounds = s.low.length ? ` [${show(s.low[0], percent)}, ${show(s.high[0], percent)}]` : "";
      this.points.push({x: x(value), y: middle, text: `${name}: ${show(value, percent)}${bounds}`});
    });
  }

  lines(svg) {
    const {series, kind, percent, log} = this.data;
    const seen = series.filter((_, i) => !this.hidden.has(i));
    const xs = series.flatMap(s => s.x), ys = seen.flatMap(s => [...s.y, ...s.low, ...s.high]);
    let x0 = Math.min(...xs), x1 = Math.max(...xs);
    if (log) { x0 /= 1.25; x1 *= 1.25; } else { const edge = (x1 - x0 || 1) * 0.03; x0 -= edge; x1 += edge; }
    let y0 = percent ? 0 : Math.min(0, ...ys), y1 = percent ? 1 : Math.max(...ys, 1e-9) * 1.05;
    if (!Number.isFinite(y1)) y1 = 1;
    const yTicks = niceTicks(y0, y1, 5);
    const left = 18 + 7.5 * Math.max(...yTicks.map(t => (percent ? String(Math.round(100 * t)) : show(t)).length)) + 14;
    const right = this.width - 12, top = kind === "points" ? 24 : 10, bottom = this.height - 42;
    const part = v => log ? Math.log(v / x0) / Math.log(x1 / x0) : (v - x0) / (x1 - x0);
    const x = v => left + (right - left) * part(v);
    const y = v => bottom - (bottom - top) * (v - y0) / (y1 - y0);
    const distinct = [...new Set(xs)].sort((a, b) => a - b);
    const few = !log && distinct.length <= 8 && distinct.every(Number.isInteger);
    this.axis(svg, x, left, right, bottom, bottom, few ? distinct : log ? logTicks(x0, x1, this.width > 420) : niceTicks(Math.max(x0, Math.min(...xs)), x1, this.width < 500 ? 4 : 6));
    for (const t of yTicks) {
      make("line", {x1: left, x2: right, y1: y(t), y2: y(t), class: "grid"}, svg);
      make("text", {x: left - 7, y: y(t) + 4, "text-anchor": "end"}, svg, percent ? Math.round(100 * t) : show(t));
    }
    make("line", {x1: left, x2: right, y1: bottom, y2: bottom, class: "axis"}, svg);
    make("text", {x: (left + right) / 2, y: this.height - 6, "text-anchor": "middle", class: "label"}, svg, this.data.x);
    make("text", {x: -(top + bottom) / 2, y: 12, transform: "rotate(-90)", "text-anchor": "middle", class: "label"}, svg, percent ? `${this.data.y}, %` : this.data.y);
    const order = series.map((_, i) => i).sort((a, b) => series[b].baseline - series[a].baseline);
    for (const i of order) {
      if (this.hidden.has(i)) continue;
      const s = series[i], look = this.looks[i], style = `stroke:${look.colour}`;
      const path = v => s.x.map((_, k) => `${k ? "L" : "M"}${x(s.x[k])} ${y(v[k])}`).join("");
      if (s.low.length && s.x.length > 1 && kind === "lines") {
        const back = s.x.map((_, k) => k).reverse().map(k => `L${x(s.x[k])} ${y(s.low[k])}`).join("");
        make("path", {d: `${path(s.high)}${back}Z`, style: `fill:${look.colour}`, class: "band"}, svg);
      } else s.low.forEach((low, k) => make("line", {x1: x(s.x[k]), x2: x(s.x[k]), y1: y(low), y2: y(s.high[k]), style, "stroke-width": 1.4}, svg));
      if (kind === "lines") make("path", {d: path(s.y), style, class: "line", "stroke-dasharray": look.dash}, svg);
      s.x.forEach((_, k) => {
        if (s.x.length <= 12 && new Set(s.x).size === s.x.length) this.mark(svg, x(s.x[k]), y(s.y[k]), look, 4);
        const bounds = s.low.length ? ` [${show(s.low[k], percent)}, ${show(s.high[k], percent)}]` : "";
        this.points.push({x: x(s.x[k]), y: y(s.y[k]), text: `${s.name}: ${show(s.y[k], percent)}${bounds} at ${show(s.x[k])} ${this.data.x}`});
      });
    }
    const placed = [];
    if (kind === "points")
      order.filter(i => !this.hidden.has(i)).forEach(i => {
        const s = series[i], px = x(s.x[0]), py = y(s.y[0]) - 8, wide = 6.6 * s.name.length;
        const from = px > (left + right) / 2 ? px - 8 - wide : px + 8;
        if (from < left || placed.some(p => from < p.to && from + wide > p.from && Math.abs(py - p.py) < 13)) return;
        placed.push({from, to: from + wide, py});
        make("text", {x: from, y: py, class: "value"}, svg, s.name);
      });
  }

  listen(svg) {
    let at = -1;
    const tell = point => {
      this.tip.textContent = point ? point.text : "";
      this.tip.hidden = !point;
      if (!point) return;
      const half = this.tip.offsetWidth / 2;
      this.tip.style.left = `${Math.min(Math.max(point.x, half), Math.max(half, this.width - half))}px`;
      this.tip.style.top = `${point.y - 12}px`;
    };
    svg.addEventListener("pointermove", event => {
      const box = svg.getBoundingClientRect();
      const far = p => Math.hypot(p.x - event.clientX + box.left, p.y - event.clientY + box.top);
      const near = this.points.reduce((a, b) => a && far(a) <= far(b) ? a : b, null);
      tell(near && far(near) < 60 ? near : null);
    });
    svg.addEventListener("pointerleave", () => tell(null));
    svg.addEventListener("blur", () => tell(null));
    svg.addEventListener("keydown", event => {
      const step = {ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1}[event.key];
      if (!step || !this.points.length) return;
      event.preventDefault();
      at = (at + step + this.points.length) % this.points.length;
      tell(this.points[at]);
    });
  }
}

for (const figure of document.querySelectorAll("figure.chart")) new Chart(figure);

// A head of a column sorts its table; a second press turns the order round.
for (const table of document.querySelectorAll("table.sortable")) {
  const body = table.tBodies[0];
  [...table.tHead.rows[0].cells].forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.className = "sort";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const number = head.classList.contains("number");
      const falling = head.getAttribute("aria-sort") ? head.getAttribute("aria-sort") === "ascending" : number;
      for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", falling ? "descending" : "ascending");
      const value = row => {
        const text = row.cells[column].textContent.trim();
        const parsed = parseFloat(text.replaceAll(",", ""));
        return number ? (Number.isNaN(parsed) ? (falling ? -Infinity : Infinity) : parsed) : text;
      };
      const sign = falling ? -1 : 1;
      [...body.rows].sort((a, b) => sign * (value(a) < value(b) ? -1 : value(a) > value(b) ? 1 : 0)).forEach(row => body.append(row));
    });
  });
}

for (const group of document.querySelectorAll(".group")) {
  const button = group.querySelector("button.together");
  if (!button) continue;
  button.hidden = false;
  button.addEventListener("click", () => {
    for (const video of group.querySelectorAll("video")) { video.currentTime = 0; video.play(); }
  });
}

// The 3D viewer is one page within this file; a replay is that page with a recorded scene put into it.
const text = base64 => new TextDecoder().decode(Uint8Array.from(atob(base64), c => c.charCodeAt(0)));
for (const button of document.querySelectorAll("button.replay")) {
  button.hidden = false;
  button.addEventListener("click", () => {
    const viewer = text(document.getElementById("viewer").textContent.trim());
    const scene = document.getElementById(button.dataset.scene).textContent.trim();
    const dark = matchMedia("(prefers-color-scheme: dark)").matches;
    const data = `<script>window.__VISER_EMBED_DATA__="${scene}";window.__VISER_EMBED_CONFIG__={darkMode:${dark}};<\/script>`;
    const end = viewer.indexOf("</head>");
    const frame = document.createElement("iframe");
    frame.title = button.dataset.title;
    frame.srcdoc = viewer.slice(0, end) + data + viewer.slice(end);
    button.closest(".stage").replaceChildren(frame);
    frame.focus();
  });
}
