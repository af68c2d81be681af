// Points: particles on their way from noise to data, and one of the reader's own.
"use strict";

const PARTICLES = 900, GROUP = 100;  // all of them, and those that are computed together
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
  const w = seeded(7).normal(200 * n), points = real.x ?? kind.end(model, last(pathOf(noiseOf(w, 200), 200, quick())));
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
    out[2 * i + j] = inSteps ? v : (1 - s) * (m + sd * v) + s * v;
  });
  return out;
}

function noiseOf(w, rows) {  // the noise, or the codes, of rows of w
  if (!hasCodes) return w;
  const z = new Float64Array(rows * n);
  for (let i = 0; i < rows; i++) z.set(codeOf(w.subarray(i * n, (i + 1) * n)), i * n);
  return z;
}

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
  const bins = angle.map((a) => Math.floor(((a / Math.PI + 1) / 2) * 24) % 24);  // 24 colours
  const fresh = cloud = { frames: [], times: [], bins, done: false };
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

const startsAt = () => (hasCodes ? [0, 1] : seen());  // the two numbers of the noise whose place is drawn

function mineAt(w) {  // a particle of one's own; its other numbers, if there are more than two, are 0
  const all = new Float64Array(n);
  startsAt().forEach((k, j) => { all[k] = w[j]; });
  mine = { w: [w[0], w[1]], frames: [...walk(all, 1, state.seed)].map(([, x]) => x) };
}

const planned = () => (inSteps ? state.options.n_steps : isFlow ? model.n_layers : 1);  // how many steps the whole way has

function between(list, time) {  // [frame before, frame after, share of the second]
  const at = Math.min(Math.max(0, time) * planned(), list.length - 1), i = Math.floor(at);
  return [list[i], list[Math.min(i + 1, list.length - 1)], at - i];
}

const SIZE = 2.2, TRAIL = 0.07;  // of a dot in pixels; of the line behind it, as a part of the whole way

function drawCloud() {
  const { context, width } = sized(byId("cloud"));
  const sx = (x) => ((x - view.centre[0]) / view.half + 1) * (width / 2);
  const sy = (y) => (1 - (y - view.centre[1]) / view.half) * (width / 2);
  context.fillStyle = colour("--card");
  context.fillRect(0, 0, width, width);
  if (real.x) {
    const [across, up] = seen();
    context.fillStyle = colour("--dot");
    for (let i = 0; i < real.x.rows; i++) {
      const x = rowOf(real.x, i);
      context.fillRect(sx(x[across]) - 1, sy(x[up]) - 1, 2, 2);
    }
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
    const ends = state.time <= 0 ? "noise" : state.time >= 1 ? "data" : "between";
    byId("now").textContent = hasCodes ? ends : timeSaid(frame);
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

function axes(context, width, sx, sy) {  // round numbers at the edges, in the units of the data
  context.fillStyle = colour("--soft");
  context.font = "11px system-ui, sans-serif";
  seen().forEach((column, j) => {
    const { mean, std } = scale ? { mean: scale.mean[column], std: scale.std[column] } : { mean: 0, std: 1 };
    const [low, high] = [-0.92, 0.92].map((side) => mean + std * (view.centre[j] + side * view.half));
    const power = 10 ** Math.floor(Math.log10((high - low) / 4));
    const step = power * [1, 2, 5, 10].find((k) => high - low <= 6 * k * power);
    context.textAlign = j ? "left" : "center";
    for (let k = Math.ceil(low / step); k * step <= high; k++) {
      const text = String(Number((k * step).toPrecision(6))), place = (k * step - mean) / std;
      context.fillText(text, j ? 4 : sx(place), j ? sy(place) + 4 : width - 5);
    }
    context.textAlign = j ? "left" : "right";
    const word = names ? names[column].slice(0, 24) : "";
    if (word) context.fillText(j ? `↑ ${word}` : `${word} →`, j ? 4 : width - 6, j ? 12 : width - 18);
  });
}

function dragMine(x, y) {  // the noise that is drawn at this place
  const at = [x, y].map((p, j) => view.centre[j] + p * view.half);
  mineAt(at.map((p, j) => (p - view.spread[j][0]) / view.spread[j][1]));
  drawCloud();
}
