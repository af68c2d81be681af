// What is seen: the plane to drag in, the picture or the points, and the controls. layers.js and models.js do the computing.
"use strict";

const byId = (id) => document.getElementById(id);
const TOLERANCE = 1e-5, REACH = 2.5, PARTICLES = 900, GROUP = 100, BUDGET = 26;  // BUDGET: milliseconds for a picture while dragging

function failed(error) {  // never a blank page
  byId("error").hidden = false;
  byId("error").textContent = `Something went wrong: ${error?.message ?? error}. Make the page again, or try another browser.`;
  if (!document.documentElement.dataset.check) said("The page could not check itself.", false);
}
window.addEventListener("error", (event) => failed(event.error ?? event.message));

function said(text, good) {
  byId("check").textContent = text;
  byId("check").className = good ? "good" : "bad";
}

// ---- what Python wrote ----

const drawnText = JSON.parse(byId("drawn").textContent), numbers = decoded(byId("numbers").textContent.trim());
const { model, shape, classes, plane, real, checks, columns: names, scale } = opened(drawnText, numbers);
const kind = MODELS[model.type];
const hasCodes = Boolean(plane.axes), walks = "denoiser" in model || "flow" in model;  // walks: it goes from noise to x in steps
const steppable = "denoiser" in model, diffusion = model.type === "DDPM";
const n = hasCodes ? model.n_latent : model.n_features;

const state = {
  u: 0, v: 0, w: new Float64Array(n), across: 0, up: 1, seed: 1, time: 1, playing: false, view: "map", example: null,
  label: classes && shape && !steppable ? classes[0] : null,  // null: any
  options: steppable
    ? { n_steps: Math.min(model.n_steps, model.n_times ?? Infinity), guidance: model.guidance, ...(diffusion ? { eta: model.eta } : { noise: model.noise, solver: model.solver }) }
    : { draw_x: Boolean(model.draw_x) && !shape },
};

// ---- from the plane to the noise ----

let mixed = [];  // three noises, of which the square of a model without codes is mixed
function redraw() {  // new noise from the seed
  const rng = seeded(state.seed);
  mixed = [0, 1, 2].map(() => rng.normal(n));
}

function codeOf(w) {  // z = mean + axes w
  const z = Float64Array.from(plane.mean.data);
  for (let i = 0; i < n; i++) for (let j = 0; j < n; j++) z[i] += plane.axes.data[i * n + j] * w[j];
  return z;
}

function noiseAt(u, v) {
  if (!hasCodes) {  // for all u and v it is N(0, I)
    const length = Math.sqrt(1 + u * u + v * v), [e0, e1, e2] = mixed;
    return e0.map((e, i) => (e + u * e1[i] + v * e2[i]) / length);
  }
  const w = Float64Array.from(state.w);
  [w[state.across], w[state.up]] = [u, v];
  return codeOf(w);
}

const labelsOf = (rows, rng) =>
  state.label !== null ? full(rows, state.label).map(Math.trunc) : classes && !steppable ? Int32Array.from(rng.uniform(rows), (p) => classes[Math.floor(p * classes.length)]) : null;

function pathOf(noise, rows, options = state.options, seed = state.seed) {
  const rng = seeded(seed + 1000), labels = labelsOf(rows, rng);
  return kind.path(model, matrix(rows, n, noise), labels && Array.from(labels), options, rng);
}

// ---- work that may wait, some milliseconds at a time ----

const jobs = new Map(), timers = new Map();
let awake = false;
function later(name, job, wait = 0) {  // in place of an earlier job of this name
  never(name);
  timers.set(name, setTimeout(() => {
    jobs.set(name, job);
    if (!awake) { awake = true; tick(); }
  }, wait));
}
function never(name) {
  clearTimeout(timers.get(name));
  jobs.delete(name);
}
function tick() {
  const end = performance.now() + 12;
  while (jobs.size && performance.now() < end) {
    const [name, job] = jobs.entries().next().value;
    try { if (job.next().done && jobs.get(name) === job) jobs.delete(name); } catch (error) { jobs.delete(name); failed(error); }
  }
  awake = jobs.size > 0;
  if (awake) setTimeout(tick, 0);
}

// ---- canvases ----

const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const ofClass = (k) => `hsl(${(k * 137.5 + 205) % 360} 62% 50%)`;

function sized(canvas) {  // its context, with one unit to one pixel of the page
  const ratio = window.devicePixelRatio || 1, width = canvas.clientWidth || 400, height = canvas.clientHeight || width;
  const [w, h] = [Math.round(width * ratio), Math.round(height * ratio)];
  if (canvas.width !== w || canvas.height !== h) [canvas.width, canvas.height] = [w, h];
  const context = canvas.getContext("2d");
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  return { context, width, height };
}

const sheet = document.createElement("canvas");
function pictured(x) {  // one example as a small canvas, its pixels one to one: ink on paper, or colours
  const [h, w, channels] = shape;
  [sheet.width, sheet.height] = [w, h];
  const context = sheet.getContext("2d"), image = context.createImageData(w, h);
  for (let i = 0; i < h * w; i++) for (let c = 0; c < 3; c++) {
    const v = channels ? x[3 * i + c] : 1 - x[i];
    image.data[4 * i + c] = 255 * Math.min(Math.max(v, 0), 1);
  }
  for (let i = 3; i < image.data.length; i += 4) image.data[i] = 255;
  context.putImageData(image, 0, 0);
  return sheet;
}

function put(context, x, left, top, side) {  // an example in a square
  const [h, w] = shape, factor = side / Math.max(h, w);
  context.imageSmoothingEnabled = Math.max(h, w) > 16 && factor < 4;
  context.drawImage(pictured(x), left + (side - w * factor) / 2, top + (side - h * factor) / 2, w * factor, h * factor);
}

const rowOf = (x, i) => x.data.subarray(i * x.columns, (i + 1) * x.columns);

// ---- pictures: a plane and what the model makes of its points ----

let frames = [], costs = [5];  // [t, x] from noise to picture; milliseconds that a step has taken in the last few pictures

function quick() {  // options that are fast enough to drag
  if (!steppable) return state.options;
  const usual = [...costs].sort((a, b) => a - b)[costs.length >> 1];
  return { ...state.options, n_steps: Math.min(state.options.n_steps, Math.max(2, Math.floor(BUDGET / usual))) };
}

function render() {  // at once; the full number of steps follows when the hand rests
  const options = quick(), noise = noiseAt(state.u, state.v), start = performance.now();
  frames = [...pathOf(noise, 1, options)];
  if (steppable) costs = [...costs, (performance.now() - start) / options.n_steps].slice(-7);
  drawPicture(options.n_steps);
  drawPlane();
  if (steppable && options.n_steps < state.options.n_steps) later("full", whole(noise), 150);
  else never("full");
}

function* whole(noise) {
  const found = [];
  for (const frame of pathOf(noise, 1)) { found.push(frame); yield; }
  frames = found;
  drawPicture(state.options.n_steps);
}

const frameAt = (time) => frames[Math.round(time * (frames.length - 1))];

function timeSaid([t]) {
  if (diffusion) return `t = ${t} of ${model.n_times}`;
  return "flow" in model ? `layer ${Math.round(t * model.n_layers)} of ${model.n_layers}` : `t = ${t.toFixed(2)}`;
}

function drawPicture(n_steps) {
  const frame = steppable ? frameAt(state.time) : frames.at(-1);
  const { context, width } = sized(byId("picture"));
  context.fillStyle = "#fff";
  context.fillRect(0, 0, width, width);
  put(context, kind.end(model, frame[1]).data, 0, 0, width);
  byId("original").hidden = state.example === null;
  if (state.example !== null) {
    const small = sized(byId("original"));
    put(small.context, rowOf(real.x, state.example), 0, 0, small.width);
  }
  if (!steppable) {
    byId("pictureNote").textContent = state.example === null ? "" : "Small: the real picture. Large: what the model makes of its code.";
    return;
  }
  byId("now").textContent = timeSaid(frame);
  byId("clock").value = state.time;
  const few = n_steps < state.options.n_steps ? `While you drag: ${n_steps} of ${state.options.n_steps} steps.` : `${n_steps} steps.`;
  byId("pictureNote").textContent = `${few} Upper row: x on its way. Lower row: the example that the network guesses from it.`;
  drawStrip();
}

function guessAt(i) {  // the example that the network sees in frame i
  const now = frames[i], next = frames[i + 1];
  if (!next) return now[1];
  if (diffusion) return next[2];  // x̂_0, from which the step was made
  const [t, x] = now, h = next[0] - t;
  return zip(x, next[1], (a, b) => a + ((1 - t) * (b - a)) / h);  // straight on with this velocity, until t = 1
}

function drawStrip() {
  const { context, width, height } = sized(byId("strip")), count = Math.max(2, Math.min(8, frames.length));
  const side = Math.min(height / 2 - 2, width / count - 4), pitch = (width - side) / (count - 1);
  context.clearRect(0, 0, width, height);
  for (let k = 0; k < count; k++) {
    const i = Math.round((k / (count - 1)) * (frames.length - 1));
    put(context, kind.end(model, frames[i][1]).data, k * pitch, 0, side);
    put(context, kind.end(model, guessAt(i)).data, k * pitch, height - side, side);
    if (Math.abs(k / (count - 1) - state.time) > 0.5 / (count - 1)) continue;
    context.strokeStyle = colour("--accent");
    context.lineWidth = 2;
    context.strokeRect(k * pitch + 1, 1, side - 2, height - 2);
  }
}

const TILES = shape && Math.max(...shape.slice(0, 2)) > 16 ? 11 : 9;
const mapCanvas = document.createElement("canvas");

function* mapped() {  // pictures all over the plane, from its middle outwards
  const count = steppable ? 7 : TILES, side = 56, middle = (count - 1) / 2;
  const options = steppable ? { ...state.options, n_steps: Math.min(state.options.n_steps, 12) } : state.options;
  const far = ([i, j]) => Math.hypot(i - middle, j - middle), place = (k) => ((k + 0.5) / count) * 2 * REACH - REACH;
  const places = range(0, count * count).map((k) => [k % count, Math.floor(k / count)]).sort((a, b) => far(a) - far(b));
  if (mapCanvas.width !== side * count) mapCanvas.width = mapCanvas.height = side * count;
  const context = mapCanvas.getContext("2d");
  for (const [k, [i, j]] of places.entries()) {
    let x = null;
    for (const [, x_t] of pathOf(noiseAt(place(i), -place(j)), 1, options)) { x = x_t; if (steppable) yield; }
    context.fillStyle = "#fff";
    context.fillRect(i * side, j * side, side, side);
    put(context, kind.end(model, x).data, i * side + 2, j * side + 2, side - 4);
    if (k % 10 === 9) drawPlane();
    yield;
  }
  drawPlane();
}

function toPlane(width) {
  return { x: (u) => ((u / REACH + 1) / 2) * width, y: (v) => ((1 - v / REACH) / 2) * width };
}

function drawPlane() {
  const { context, width } = sized(byId("plane")), to = toPlane(width);
  context.fillStyle = state.view === "map" ? "#fff" : colour("--card");
  context.fillRect(0, 0, width, width);
  if (state.view === "map" && mapCanvas.width > 1) {
    context.globalAlpha = 0.75;
    context.drawImage(mapCanvas, 0, 0, width, width);
    context.globalAlpha = 1;
  }
  context.strokeStyle = colour("--line");
  context.lineWidth = 1;
  for (const k of state.view === "map" ? [] : [-2, -1, 0, 1, 2]) {
    context.beginPath();
    context.moveTo(to.x(k), 0); context.lineTo(to.x(k), width);
    context.moveTo(0, to.y(k)); context.lineTo(width, to.y(k));
    context.stroke();
  }
  if (state.view === "examples") {
    context.font = "600 14px system-ui, sans-serif";
    [context.textAlign, context.textBaseline] = ["center", "middle"];
    for (let i = 0; i < real.w.rows; i++) {
      const label = real.labels?.[i];
      context.fillStyle = ofClass(label ?? 0);
      context.fillText(label ?? "•", to.x(part(real.w.data, i, state.across)), to.y(part(real.w.data, i, state.up)));
    }
  }
  const [x, y] = [to.x(state.u), to.y(state.v)];
  for (const [radius, style, fill] of [[10, "#fff", 5], [10, "#c2410c", 2.5]]) {
    context.beginPath();
    context.arc(x, y, radius, 0, 7);
    context.strokeStyle = style;
    context.lineWidth = fill;
    context.stroke();
  }
  byId("where").textContent = `${state.u.toFixed(2)}, ${state.v.toFixed(2)}`;
}

function changed(all = true) {  // all: also the map
  if (!shape) return startParticles();
  state.example = all ? state.example : null;
  render();
  if (all) later("map", mapped(), steppable ? 60 : 0);
}

function placeAt(u, v) {
  [state.u, state.v] = [Math.min(Math.max(u, -REACH), REACH), Math.min(Math.max(v, -REACH), REACH)];
  if (hasCodes) { [state.w[state.across], state.w[state.up]] = [state.u, state.v]; showSliders(); }
  state.example = null;
  render();
}

function pickExample(u, v) {  // the real example under the hand, if there is one
  if (state.view !== "examples") return false;
  let best = 0.12, found = null;
  for (let i = 0; i < real.w.rows; i++) {
    const far = Math.hypot(part(real.w.data, i, state.across) - u, part(real.w.data, i, state.up) - v);
    if (far < best) [best, found] = [far, i];
  }
  if (found === null) return false;
  state.w = Float64Array.from(rowOf(real.w, found));
  [state.u, state.v, state.example] = [state.w[state.across], n > 1 ? state.w[state.up] : v, found];
  if (classes && real.labels) { state.label = real.labels[found]; showLabels(); }
  showSliders();
  changed();
  return true;
}

// ---- points: particles on their way from noise to data ----

let cloud = null, mine = null, view = null;

const seen = () => [state.across, state.up];  // the two columns of the data that are drawn

function spreadOf(x) {  // their means and standard deviations
  return seen().map((j) => {
    let m = 0, s = 0;
    for (let i = 0; i < x.rows; i++) m += x.data[i * x.columns + j] / x.rows;
    for (let i = 0; i < x.rows; i++) s += (x.data[i * x.columns + j] - m) ** 2 / x.rows;
    return [m, Math.sqrt(s) || 1];
  });
}

function measureView() {  // how noise is drawn beside data, and how much of the plane is seen
  const rng = seeded(7), w = rng.normal(200 * n), points = real.x ?? kind.end(model, last(pathOf(noiseOf(w, 200), 200, quick())));
  const spread = spreadOf(points), centre = spread.map(([m]) => m), far = [];
  view = { spread, centre, half: 1 };
  for (const [, x] of walk(w, 200, 7, quick())) x.forEach((v, k) => far.push(Math.abs(v - centre[k % 2])));
  far.sort((a, b) => a - b);
  view.half = 1.15 * far[Math.floor(0.99 * far.length)];
  for (let i = 0; i < points.rows; i++) seen().forEach((column, j) => {
    view.half = Math.max(view.half, 1.08 * Math.abs(points.data[i * points.columns + column] - centre[j]));
  });
}

// Where x_t is drawn: data as it is. Noise of a decoder or a flow has no units, so it is drawn as wide as the data.
function placed(frame, s, w) {
  const x = kind.end(model, frame), out = new Float64Array(2 * x.rows);
  for (let i = 0; i < x.rows; i++) seen().forEach((column, j) => {
    const [m, sd] = view.spread[j], v = w ? part(w, i, j) : x.data[i * x.columns + column];
    out[2 * i + j] = steppable ? v : (1 - s) * (m + sd * v) + s * v;
  });
  return out;
}

const noiseOf = (w, rows) => {  // the noise of some w, all with the same axes
  if (!hasCodes) return w;
  const z = new Float64Array(rows * n);
  for (let i = 0; i < rows; i++) z.set(codeOf(w.subarray(i * n, (i + 1) * n)), i * n);
  return z;
};

function* walk(w, rows, seed, options = state.options) {  // yields [t, positions] of rows particles
  const length = planned();
  let k = 0;
  for (const [t, x] of pathOf(noiseOf(w, rows), rows, options, seed)) {
    const s = k === 0 ? 0 : Math.min(1, k / length);
    yield [t, placed(x, s, hasCodes && k === 0 ? w : null)];
    k++;
  }
}

function startParticles() {
  measureView();
  const rng = seeded(state.seed), groups = range(0, PARTICLES / GROUP).map((g) => {
    const w = rng.normal(GROUP * n);
    return { w, path: walk(w, GROUP, state.seed + 31 * g) };
  });
  const [across, up] = startsAt();
  const angle = groups.flatMap(({ w }) => range(0, GROUP).map((i) => Math.atan2(part(w, i, up), part(w, i, across))));
  const fresh = cloud = { frames: [], times: [], bins: angle.map((a) => Math.floor(((a / Math.PI + 1) / 2) * 24) % 24), done: false };
  fresh.job = (function* () {
    for (;;) {
      const positions = [];
      let time = null;
      for (const { path } of groups) {
        const { value, done } = path.next();
        if (done) { fresh.done = true; drawCloud(); return; }
        time = value;
        positions.push(value[1]);
        yield;
      }
      fresh.times.push(time);
      fresh.frames.push(positions);
      if (!state.playing || fresh.frames.length === 1) drawCloud();
    }
  })();
  later("particles", fresh.job);
  mineAt(mine?.w ?? [0.8, 0.6]);
  drawCloud();
}

const part = (w, i, k) => (k < n ? w[i * n + k] : 0);  // number k of row i; a model may have one code only
const startsAt = () => (hasCodes ? [0, 1] : seen());  // the two numbers of the noise whose place is drawn

function mineAt(w) {  // a particle of one's own; its other numbers, if there are more than two, are 0
  const all = new Float64Array(n);
  startsAt().forEach((k, j) => { all[k] = w[j]; });
  mine = { w: [w[0], w[1]], frames: [...walk(all, 1, state.seed)].map(([, x]) => x) };
}

const planned = () => (steppable ? state.options.n_steps : "flow" in model ? model.n_layers : 1);

function between(list, time) {  // [frame before, frame after, share of the second]
  const at = Math.min(Math.max(0, time) * planned(), list.length - 1), i = Math.floor(at);
  return [list[i], list[Math.min(i + 1, list.length - 1)], at - i];
}

const SIZE = 2.2, TRAIL = 0.07;  // of a dot in pixels; of the line behind it, as a part of the whole way

function drawCloud() {
  const { context, width } = sized(byId("cloud"));
  const sx = (x) => ((x - view.centre[0]) / view.half + 1) * (width / 2), sy = (y) => (1 - (y - view.centre[1]) / view.half) * (width / 2);
  context.fillStyle = colour("--card");
  context.fillRect(0, 0, width, width);
  if (real.x) {
    const [across, up] = seen(), m = real.x.columns;
    context.fillStyle = colour("--dot");
    for (let i = 0; i < real.x.rows; i++) context.fillRect(sx(real.x.data[i * m + across]) - 1, sy(real.x.data[i * m + up]) - 1, 2, 2);
  }
  axes(context, width, sx, sy);
  if (cloud.frames.length) {
    const dots = range(0, 24).map(() => new Path2D()), trails = range(0, 24).map(() => new Path2D());
    const mix = ([a, b, share], g, k) => a[g][k] + share * (b[g][k] - a[g][k]);
    const now = between(cloud.frames, state.time), then = between(cloud.frames, state.time - TRAIL), moving = state.time < 1;
    for (let g = 0, p = 0; g < now[0].length; g++) for (let i = 0; i < GROUP; i++, p++) {
      const x = sx(mix(now, g, 2 * i)), y = sy(mix(now, g, 2 * i + 1)), bin = cloud.bins[p];
      dots[bin].moveTo(x + SIZE, y);
      dots[bin].arc(x, y, SIZE, 0, 7);
      if (!moving) continue;
      trails[bin].moveTo(x, y);
      trails[bin].lineTo(sx(mix(then, g, 2 * i)), sy(mix(then, g, 2 * i + 1)));
    }
    context.lineWidth = 1.2;
    for (let bin = 0; bin < 24; bin++) {
      context.strokeStyle = `hsl(${bin * 15} 68% 52% / .35)`;
      context.stroke(trails[bin]);
      context.fillStyle = `hsl(${bin * 15} 68% 52% / .85)`;
      context.fill(dots[bin]);
    }
    const [frame] = between(cloud.times, state.time);
    byId("now").textContent = hasCodes ? (state.time <= 0 ? "noise" : state.time >= 1 ? "data" : "between") : timeSaid(frame);
  }
  drawMine(context, sx, sy);
  byId("clock").value = state.time;
}

function drawMine(context, sx, sy) {
  if (!mine) return;
  const ink = colour("--ink");
  context.strokeStyle = ink;
  context.lineWidth = 1.6;
  context.beginPath();
  mine.frames.forEach((x, k) => (k ? context.lineTo(sx(x[0]), sy(x[1])) : context.moveTo(sx(x[0]), sy(x[1]))));
  context.stroke();
  const [from, to, share] = between(mine.frames, state.time), now = [0, 1].map((j) => from[j] + share * (to[j] - from[j]));
  const start = mine.frames[0];
  for (const [[x, y], radius, fill] of [[start, 8, colour("--card")], [now, 5, ink]]) {
    context.beginPath();
    context.arc(sx(x), sy(y), radius, 0, 7);
    context.fillStyle = fill;
    context.fill();
    context.stroke();
  }
}

function axes(context, width, sx, sy) {  // a few numbers at the edges, in the units of the data
  const step = 10 ** Math.floor(Math.log10(view.half)), ticks = view.half / step < 2 ? step / 2 : view.half / step > 5 ? 2 * step : step;
  const value = (x, j) => (scale ? x * scale.std[seen()[j]] + scale.mean[seen()[j]] : x), word = (j) => names[seen()[j]].slice(0, 24);
  context.fillStyle = colour("--soft");
  context.font = "11px system-ui, sans-serif";
  for (let k = -8; k <= 8; k++) {
    const x = Math.round(view.centre[0] / ticks) * ticks + k * ticks, y = Math.round(view.centre[1] / ticks) * ticks + k * ticks;
    const write = (v) => String(Number(v.toPrecision(3)));
    context.textAlign = "center";
    if (Math.abs(x - view.centre[0]) < 0.92 * view.half) context.fillText(write(value(x, 0)), sx(x), width - 5);
    context.textAlign = "left";
    if (Math.abs(y - view.centre[1]) < 0.92 * view.half) context.fillText(write(value(y, 1)), 4, sy(y) + 4);
  }
  context.textAlign = "right";
  if (names) context.fillText(`${word(0)} →`, width - 6, width - 18);
  context.textAlign = "left";
  if (names) context.fillText(`↑ ${word(1)}`, 4, 12);
}

// ---- time ----

let before = null;
function play(on) {
  state.playing = on;
  byId("play").textContent = on ? "Pause" : "Play";
  before = null;
  if (on) { if (state.time >= 1) state.time = 0; requestAnimationFrame(advance); }
}

function advance(now) {
  if (!state.playing) return;
  const ready = shape ? 1 : cloud.done ? 1 : Math.max(0, cloud.frames.length - 1) / planned();  // no further than what is computed
  state.time = Math.min(state.time + (before === null ? 0 : (now - before) / 3500), ready);
  before = now;
  if (shape) drawPicture(frames.length - 1); else drawCloud();
  if (state.time >= 1) play(false); else requestAnimationFrame(advance);
}

function scrub(time) {
  play(false);
  state.time = time;
  if (shape) drawPicture(frames.length - 1); else drawCloud();
}

let wandering = false;
function wander(on) {  // the ring goes about by itself
  wandering = on;
  byId("wander")?.setAttribute("aria-pressed", String(on));
  const began = performance.now();
  const step = (now) => {
    if (!wandering) return;
    const a = (now - began) / 2600;
    placeAt(0.96 * state.u + 0.04 * 2 * Math.sin(a), 0.96 * state.v + 0.04 * 2 * Math.sin(1.4 * a + 1));
    requestAnimationFrame(step);
  };
  if (on) requestAnimationFrame(step);
}

// ---- controls ----

const made = (tag, attributes = {}, ...inside) => {
  const element = Object.assign(document.createElement(tag), attributes);
  element.append(...inside);
  return element;
};
const block = (...inside) => byId("controls").appendChild(made("div", {}, ...inside));

function slider(title, { min, max, step = 1, value, write = (v) => String(v) }, change) {
  const output = made("output", { textContent: write(value) }), input = made("input", { type: "range", min, max, step, value });
  input.setAttribute("aria-label", title);
  input.addEventListener("input", () => { output.textContent = write(Number(input.value)); change(Number(input.value)); });
  const set = (v) => { input.value = v; output.textContent = write(v); };
  return { element: made("div", {}, made("div", { className: "title" }, made("span", { textContent: title }), output), input), input, set };
}

let showLabels = () => {}, showSliders = () => {}, showGuidance = () => {};

function choice(buttons, now, pick) {  // buttons of which one is pressed
  const all = buttons.map(([value, text, title = ""]) => [value, made("button", { textContent: text, title, type: "button" })]);
  const show = () => all.forEach(([value, button]) => button.setAttribute("aria-pressed", String(value === now())));
  all.forEach(([value, button]) => button.addEventListener("click", () => { pick(value); show(); }));
  show();
  return { elements: all.map(([, button]) => button), show };
}

function controls() {
  const wait = (change) => { let timer; return (v) => { clearTimeout(timer); timer = setTimeout(() => change(v), shape ? 0 : 60); }; };
  const set = (name) => wait((v) => { state.options[name] = v; changed(); again(); });
  const again = () => { if (!shape && !document.hidden) { state.time = 0; play(true); } };
  if (classes) {
    const any = steppable || !shape ? [[null, "any", "no class is given"]] : [];
    const { elements, show } = choice([...any, ...classes.map((k) => [k, String(k)])], () => state.label, (k) => { state.label = k; showGuidance(); changed(); again(); });
    showLabels = show;
    block(made("div", { className: "title", textContent: "class" }), made("div", { className: "row" }, ...elements));
  }
  const seed = made("output", { textContent: `seed ${state.seed}` });
  const fresh = made("button", { textContent: hasCodes && shape ? "Random code" : "New noise", type: "button" });
  fresh.addEventListener("click", () => {
    state.seed += 1;
    seed.textContent = `seed ${state.seed}`;
    newNoise();
    changed();
    again();
  });
  const middle = made("button", { textContent: "Middle", type: "button", title: "all codes 0" });
  middle.addEventListener("click", () => { state.w.fill(0); [state.u, state.v, state.example] = [0, 0, null]; showSliders(); changed(); });
  const tour = made("button", { id: "wander", textContent: "Wander", type: "button", title: "the ring goes about by itself" });
  tour.addEventListener("click", () => wander(!wandering));
  block(made("div", { className: "row" }, fresh, ...(hasCodes && shape ? [middle] : []), ...(shape ? [tour] : []), seed));
  if (hasCodes && shape && n > 2) codeControls();
  if (!shape && model.n_features > 2) axisControls("columns: across, up", range(0, model.n_features).map((k) => names?.[k] ?? `x${k + 1}`), () => { mine = null; changed(); });
  if (steppable) {
    block(slider("steps", { min: 1, max: model.n_times ?? 100, value: state.options.n_steps }, set("n_steps")).element);
    if (classes) {
      const guidance = slider("guidance w, with a class", { min: 0, max: 6, step: 0.1, value: state.options.guidance, write: (v) => v.toFixed(1) }, set("guidance"));
      showGuidance = () => { guidance.input.disabled = state.label === null; };
      showGuidance();
      block(guidance.element);
    }
    const name = diffusion ? "eta" : "noise";
    block(slider("noise on the way η", { min: 0, max: 1, step: 0.05, value: state.options[name], write: (v) => v.toFixed(2) }, set(name)).element);
    if (!diffusion) {
      const { elements } = choice(Object.keys(SOLVERS).map((s) => [s, s]), () => state.options.solver, (s) => { state.options.solver = s; changed(); again(); });
      block(made("div", { className: "title", textContent: "solver" }), made("div", { className: "row" }, ...elements));
    }
  }
  if (model.type === "VAE" && (model.likelihood === "gaussian" || model.binarize)) {
    const box = made("input", { type: "checkbox", checked: state.options.draw_x });
    box.addEventListener("change", () => { state.options.draw_x = box.checked; changed(); });
    block(made("label", { className: "row" }, box, "draw x from p(x|z), not its mean"));
  }
}

function newNoise() {
  redraw();
  if (!hasCodes || !shape) return;
  state.w = seeded(state.seed).normal(n).map((v) => Math.min(Math.max(v, -REACH), REACH));
  [state.u, state.v, state.example] = [state.w[state.across], state.w[state.up], null];
  showSliders();
}

function axisControls(title, words, then) {  // which of some directions or columns are the axes
  const selects = [["across", "direction across"], ["up", "direction up"]].map(([name, said]) => {
    const element = made("select", { title: said }, ...words.map((text, k) => made("option", { value: k, textContent: text })));
    element.value = state[name];
    element.setAttribute("aria-label", said);
    element.addEventListener("change", () => {
      const other = name === "across" ? "up" : "across", chosen = Number(element.value);
      if (chosen === state[other]) state[other] = state[name];
      state[name] = chosen;
      selects.forEach(([key, box]) => { box.value = state[key]; });
      then();
    });
    return [name, element];
  });
  block(made("div", { className: "title", textContent: title }), made("div", { className: "row" }, ...selects.map(([, box]) => box)));
}

function codeControls() {  // which directions are the axes of the plane, and sliders for the others
  const most = Math.min(n, 10), holder = made("div");
  const part = (k) => `${(100 * plane.share.data[k]).toFixed(plane.share.data[k] < 0.1 ? 1 : 0)} %`;
  axisControls("axes of the plane: across, up", range(0, most).map((k) => `${k + 1}: ${part(k)}`), () => {
    [state.u, state.v] = [state.w[state.across], state.w[state.up]];
    build();
    titles();
    changed();
  });
  const heading = made("div", { className: "title" });
  const idle = plane.share.data.some((share) => share < 0.0005);
  block(heading, holder, made("p", { className: "note", textContent: `%: how much pictures change along a direction, as a part of their change along all of them.${idle ? " 0.0 %: the model does not use it." : ""}` }));
  function build() {
    const others = range(0, most).filter((k) => k !== state.across && k !== state.up);
    heading.textContent = n > most ? `the next directions (${n - most} more are not shown)` : "the other directions";
    const sliders = others.map((k) => [k, slider(`direction ${k + 1}: ${part(k)}`, { min: -3, max: 3, step: 0.01, value: state.w[k], write: (v) => v.toFixed(2) }, (v) => {
      state.w[k] = v;
      state.example = null;
      changed();
    })]);
    holder.replaceChildren(...sliders.map(([, s]) => s.element));
    showSliders = () => sliders.forEach(([k, s]) => s.set(state.w[k]));
  }
  build();
}

// ---- words ----

const code = { VAE: "decoder", AutoEncoder: "decoder" }[model.type] ?? "generator";

function titles() {
  const axes = n > 2 ? `Codes: directions ${state.across + 1} and ${state.up + 1}` : n > 1 ? "Codes: z₁ and z₂" : "The code z, across";
  byId("planeTitle").textContent = hasCodes ? axes : "Noise: a mix of three";
  byId("pictureTitle").textContent = shape ? "What the model makes of it" : "From noise to data";
}

function words() {
  const many = n.toLocaleString("en"), dims = shape ? `${shape[0]}×${shape[1]} pixels` : "points";
  const says = !shape
    ? `Each dot starts as noise, and ${steppable ? (diffusion ? "the network removes its noise step by step" : "follows the velocity that the network has learned") : "flow" in model ? "each layer of the flow moves it on" : `the ${code} moves it`} until it is an example. Its colour says where it began. Drag the ring to start a dot of your own.`
    : hasCodes
      ? `Each point of the square is a code z of ${many} numbers, and the ${code} turns it into ${dims}. Drag the ring.` + (n > 2 ? " Pictures change most along the two axes; sliders move along the other directions." : "")
      : `Each point of the square is a noise of ${many} numbers, mixed from three, and the model turns it into ${dims}${steppable ? " step by step" : ""}. Drag the ring: similar noise gives similar pictures.`;
  byId("says").textContent = says;
  byId("planeNote").textContent = hasCodes ? (real.w ? "Map: pictures of codes all over the plane. Examples: where the encoder puts real pictures, by class; click one." : "Behind the ring: what the model makes of codes all over the plane.") : "Behind the ring: what the model makes of noise all over the plane.";
  if (!shape) byId("pictureNote").textContent = `${PARTICLES} dots${real.x ? ", and real examples in grey" : ""}.${hasCodes ? " Only the two ends are real: the straight way between them is drawn to show which noise becomes which point." : ""}${model.n_features > 2 ? ` Two of ${model.n_features} columns are drawn.` : ""}`;
  const weights = numbers.length.toLocaleString("en");
  byId("footer").textContent = `This file holds ${weights} numbers, weights and checks, and loads nothing. Its forward pass is plain JavaScript: look at the source of the page, which has one function for each layer.`;
}

// ---- start ----

function drags(canvas, move) {  // with a pointer or the arrow keys
  const at = (event) => {
    const box = canvas.getBoundingClientRect();
    return [((event.clientX - box.left) / box.width) * 2 - 1, 1 - ((event.clientY - box.top) / box.height) * 2];
  };
  canvas.addEventListener("pointerdown", (event) => { canvas.setPointerCapture(event.pointerId); move(...at(event), true); });
  canvas.addEventListener("pointermove", (event) => { if (event.buttons) move(...at(event), false); });
}

function start() {
  redraw();
  if (hasCodes && shape && n > 2) newNoise();  // the middle of many codes is a mean of all pictures
  byId("main").hidden = false;
  byId("main").className = shape ? "" : "points";
  byId("planeCard").hidden = byId("picture").hidden = !shape;
  byId("cloud").hidden = Boolean(shape);
  byId("time").hidden = Boolean(shape) && !steppable;
  byId("strip").hidden = !(shape && steppable);
  byId("where").hidden = !shape;
  words();
  titles();
  controls();
  if (shape && real.w) {
    const { elements } = choice([["map", "Map"], ["examples", "Examples"]], () => state.view, (v) => { state.view = v; drawPlane(); });
    byId("views").append(...elements);
  }
  byId("play").addEventListener("click", () => play(!state.playing));
  byId("clock").addEventListener("input", () => scrub(Number(byId("clock").value)));
  byId("strip").addEventListener("pointerdown", (event) => { const box = byId("strip").getBoundingClientRect(); scrub(Math.min(1, Math.max(0, (event.clientX - box.left) / box.width))); });
  document.addEventListener("keydown", (event) => {
    if (event.key === " " && !event.target.closest("button, input, select") && !byId("time").hidden) { event.preventDefault(); play(!state.playing); }
    const [du, dv] = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] }[event.key] ?? [0, 0];
    if ((du || dv) && event.target === byId("plane")) { event.preventDefault(); placeAt(state.u + 0.1 * du, state.v + 0.1 * dv); }
    if ((du || dv) && event.target === byId("cloud")) { event.preventDefault(); mineAt([mine.w[0] + 0.1 * du, mine.w[1] + 0.1 * dv]); drawCloud(); }
  });
  if (shape) drags(byId("plane"), (x, y, first) => {
    wander(false);
    if (!(first && pickExample(x * REACH, y * REACH))) placeAt(x * REACH, y * REACH);
  });
  else drags(byId("cloud"), dragMine);
  const redrawAll = () => { if (shape) { drawPlane(); drawPicture(frames.length - 1); } else drawCloud(); };
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redrawAll);
  window.addEventListener("resize", redrawAll);
  changed();
  if (!shape && location.hash !== "#bench") {
    if (matchMedia("(prefers-reduced-motion: reduce)").matches) state.time = 1;
    else { state.time = 0; play(true); }
  }
}

function dragMine(x, y) {  // the noise that is drawn at this place
  const at = [x, y].map((p, j) => view.centre[j] + p * view.half);
  mineAt(at.map((p, j) => (p - view.spread[j][0]) / view.spread[j][1]));
  drawCloud();
}

function check() {
  const { worst, numbers: count } = compared(model, checks), good = worst <= TOLERANCE;
  document.documentElement.dataset.check = JSON.stringify({ worst, numbers: count, good });
  const size = worst.toExponential(0).replace("+", "");
  said(`${good ? "checked" : "wrong"}: ${count.toLocaleString("en")} numbers, worst difference from NumPy ${size} ${good ? "≤" : ">"} 1e-5`, good);
}

function bench(times = 60) {  // drags the ring around a circle, and counts
  if (!shape) for (const ready of cloud.job) if (ready) break;  // all particles have arrived
  const probe = made("canvas", { width: 1, height: 1 }).getContext("2d", { willReadFrequently: true }), began = performance.now();
  for (let i = 0; i < times; i++) {
    const angle = (2 * Math.PI * i) / times, place = [Math.cos(angle), Math.sin(angle)];
    state.time = shape ? 1 : i / times;
    if (shape) placeAt(...place.map((v) => 1.6 * v)); else dragMine(...place.map((v) => 0.5 * v));
    probe.drawImage(byId(shape ? "picture" : "cloud"), 0, 0, 1, 1);
    probe.getImageData(0, 0, 1, 1);  // waits until it is drawn
  }
  const rate = (1000 * times) / (performance.now() - began), n_steps = shape ? quick().n_steps : state.options.n_steps;
  document.documentElement.dataset.bench = JSON.stringify({ frames_per_second: rate, n_steps: n_steps ?? null });
  byId("says").textContent = `Dragging draws ${rate.toFixed(0)} frames a second${n_steps ? `, with ${n_steps} steps each` : ""}.`;
}

try {
  check();
  start();
  if (location.hash === "#bench") bench();
} catch (error) {
  failed(error);
}
