// What all pages have: what Python wrote, the state, the way from the plane to noise, work that may wait, canvases.
// layers.js and models.js compute, pictures.js and points.js draw, controls.js has the buttons, and starts.
"use strict";

const byId = (id) => document.getElementById(id);
const TOLERANCE = 1e-5, REACH = 2.5;  // of the check; of the plane, to each side

function failed(error) {  // never a blank page
  byId("error").hidden = false;
  const words = `Something went wrong: ${error?.message ?? error}.`;
  byId("error").textContent = `${words} Make the page again, or try another browser.`;
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
const hasCodes = Boolean(plane.axes), isFlow = "flow" in model;
const inSteps = "denoiser" in model, diffusion = model.type === "DDPM";  // it samples in as many steps as one likes
const n = hasCodes ? model.n_latent : model.n_features;  // how many numbers a code or a noise has

function firstOptions() {
  if (!inSteps) return { draw_x: Boolean(model.draw_x) && !shape };
  const n_steps = Math.min(model.n_steps, model.n_times ?? Infinity), common = { n_steps, guidance: model.guidance };
  return diffusion ? { ...common, eta: model.eta } : { ...common, noise: model.noise, solver: model.solver };
}

const state = {
  u: 0, v: 0,  // the place of the ring
  w: new Float64Array(n), across: 0, up: 1,  // of a code along all directions; which two are the axes
  label: classes && shape && !inSteps ? classes[0] : null,  // null: any
  options: firstOptions(), seed: 1, time: 1, playing: false, view: "map", example: null,
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

function labelsOf(rows, rng) {  // the label of each row, or null
  if (state.label !== null) return Array(rows).fill(state.label);
  if (!classes || inSteps) return null;
  return Array.from(rng.uniform(rows), (p) => classes[Math.floor(p * classes.length)]);
}

function pathOf(noise, rows, options = state.options, seed = state.seed) {
  const rng = seeded(seed + 1000), labels = labelsOf(rows, rng);
  return kind.path(model, matrix(rows, n, noise), labels, options, rng);
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
    try {
      if (job.next().done && jobs.get(name) === job) jobs.delete(name);
    } catch (error) {
      jobs.delete(name);
      failed(error);
    }
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

const part = (w, i, k) => (k < n ? w[i * n + k] : 0);  // number k of row i; a model may have one code only
const rowOf = (x, i) => x.data.subarray(i * x.columns, (i + 1) * x.columns);
