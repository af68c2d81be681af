// Pictures: a plane to drag in, what the model makes of its points, and the way from noise to a picture.
"use strict";

const BUDGET = 26;  // milliseconds for a picture while one drags
let frames = [], costs = [5];  // [t, x] from noise to picture; milliseconds that a step has taken in the last few pictures

function quick() {  // options that are fast enough to drag
  if (!inSteps) return state.options;
  const usual = [...costs].sort((a, b) => a - b)[costs.length >> 1];
  return { ...state.options, n_steps: Math.min(state.options.n_steps, Math.max(2, Math.floor(BUDGET / usual))) };
}

function render() {  // at once; the full number of steps follows when the hand rests
  const options = quick(), noise = noiseAt(state.u, state.v), start = performance.now();
  frames = [...pathOf(noise, 1, options)];
  if (inSteps) costs = [...costs, (performance.now() - start) / options.n_steps].slice(-7);
  drawPicture(options.n_steps);
  drawPlane();
  if (inSteps && options.n_steps < state.options.n_steps) later("full", whole(noise), 150);
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
  return isFlow ? `layer ${Math.round(t * model.n_layers)} of ${model.n_layers}` : `t = ${t.toFixed(2)}`;
}

function drawPicture(n_steps) {
  const frame = inSteps ? frameAt(state.time) : frames.at(-1);
  const { context, width } = sized(byId("picture"));
  context.fillStyle = "#fff";
  context.fillRect(0, 0, width, width);
  put(context, kind.end(model, frame[1]).data, 0, 0, width);
  byId("original").hidden = state.example === null;
  if (state.example !== null) {
    const small = sized(byId("original"));
    put(small.context, rowOf(real.x, state.example), 0, 0, small.width);
  }
  if (!inSteps) {
    const both = "Small: the real picture. Large: what the model makes of its code.";
    byId("pictureNote").textContent = state.example === null ? "" : both;
    return;
  }
  byId("now").textContent = timeSaid(frame);
  byId("clock").value = state.time;
  const all = state.options.n_steps, few = `While you drag: ${n_steps} of ${all} steps.`;
  byId("pictureNote").textContent = `${n_steps < all ? few : `${n_steps} steps.`} Upper row: x on its way. Lower row: the ` +
    "example that the network guesses then.";
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
  const count = inSteps ? 7 : TILES, side = 56, middle = (count - 1) / 2;
  const options = inSteps ? { ...state.options, n_steps: Math.min(state.options.n_steps, 12) } : state.options;
  const far = ([i, j]) => Math.hypot(i - middle, j - middle), place = (k) => ((k + 0.5) / count) * 2 * REACH - REACH;
  const places = range(0, count * count).map((k) => [k % count, Math.floor(k / count)]).sort((a, b) => far(a) - far(b));
  if (mapCanvas.width !== side * count) mapCanvas.width = mapCanvas.height = side * count;
  const context = mapCanvas.getContext("2d");
  for (const [k, [i, j]] of places.entries()) {
    let x = null;
    for (const [, x_t] of pathOf(noiseAt(place(i), -place(j)), 1, options)) { x = x_t; if (inSteps) yield; }
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
  if (all) later("map", mapped(), inSteps ? 60 : 0);
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
