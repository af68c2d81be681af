// Time, buttons and sliders, the words of the page, its check, and its start.
"use strict";

const drawAgain = () => { if (shape) drawPicture(frames.length - 1); else drawCloud(); };

// ---- time ----

const WHOLE = 3500;  // milliseconds from noise to data
let before = null;

function play(on) {
  state.playing = on;
  byId("play").textContent = on ? "Pause" : "Play";
  before = null;
  if (!on) return;
  if (state.time >= 1) state.time = 0;
  requestAnimationFrame(advance);
}

function advance(now) {
  if (!state.playing) return;
  const ready = shape || cloud.done ? 1 : Math.max(0, cloud.frames.length - 1) / planned();  // no further than is computed
  state.time = Math.min(state.time + (before === null ? 0 : (now - before) / WHOLE), ready);
  before = now;
  drawAgain();
  if (state.time >= 1) play(false); else requestAnimationFrame(advance);
}

function scrub(time) {
  play(false);
  state.time = Math.min(1, Math.max(0, time));
  drawAgain();
}

let wandering = false;
function wander(on) {  // the ring goes about by itself
  wandering = on;
  byId("wander").setAttribute("aria-pressed", String(on));
  const began = performance.now(), towards = (from, to) => from + 0.04 * (to - from);
  const step = (now) => {
    if (!wandering) return;
    const a = (now - began) / 2600;
    placeAt(towards(state.u, 2 * Math.sin(a)), towards(state.v, 2 * Math.sin(1.4 * a + 1)));
    requestAnimationFrame(step);
  };
  if (on) requestAnimationFrame(step);
}

// ---- elements ----

function made(tag, attributes = {}, ...inside) {
  const element = Object.assign(document.createElement(tag), attributes);
  element.append(...inside);
  return element;
}

const block = (...inside) => byId("controls").appendChild(made("div", {}, ...inside));
const titled = (title, elements) =>
  block(made("div", { className: "title", textContent: title }), made("div", { className: "row" }, ...elements));

function button(text, act, title = "") {
  const element = made("button", { textContent: text, title, type: "button" });
  element.addEventListener("click", act);
  return element;
}

function slider(title, { min, max, step = 1, value, digits = 0 }, change) {
  const output = made("output"), input = made("input", { type: "range", min, max, step, value });
  const show = () => { output.textContent = Number(input.value).toFixed(digits); };
  input.setAttribute("aria-label", title);
  input.addEventListener("input", () => { show(); change(Number(input.value)); });
  show();
  const element = made("div", {}, made("div", { className: "title" }, made("span", { textContent: title }), output), input);
  return { element, input, set(v) { input.value = v; show(); } };
}

function choice(options, now, pick) {  // buttons, of which the one of the value now() is pressed
  const show = () => all.forEach(([value, element]) => element.setAttribute("aria-pressed", String(value === now())));
  const all = options.map(([value, text]) => [value, button(text, () => { pick(value); show(); })]);
  show();
  return { elements: all.map(([, element]) => element), show };
}

// ---- controls ----

let showLabels = () => {}, showSliders = () => {}, showGuidance = () => {};

function again() {  // particles start once more
  if (shape) return;
  state.time = 0;
  play(true);
}

function renewed() { changed(); again(); }

function setting(name) {  // what a slider of a setting does; new particles wait until it rests
  let timer;
  return (v) => {
    clearTimeout(timer);
    timer = setTimeout(() => { state.options[name] = v; renewed(); }, shape ? 0 : 60);
  };
}

function controls() {
  if (classes) labelControls();
  noiseControls();
  if (hasCodes && shape && n > 2) codeControls();
  if (!shape && model.n_features > 2) {
    const columns = range(0, model.n_features).map((k) => names?.[k] ?? `x${k + 1}`);
    axisControls("columns: across, up", columns, () => { mine = null; changed(); });
  }
  if (inSteps) stepControls();
  if (model.type !== "VAE" || !(model.likelihood === "gaussian" || model.binarize)) return;
  const box = made("input", { type: "checkbox", checked: state.options.draw_x });
  box.addEventListener("change", () => { state.options.draw_x = box.checked; changed(); });
  block(made("label", { className: "row" }, box, "draw x from p(x|z), not its mean"));
}

function labelControls() {
  const options = classes.map((k) => [k, String(k)]);
  const { elements, show } = choice(inSteps || !shape ? [[null, "any"], ...options] : options, () => state.label, (k) => {
    state.label = k;
    showGuidance();
    renewed();
  });
  showLabels = show;
  titled("class", elements);
}

function noiseControls() {
  const seed = made("output", { textContent: `seed ${state.seed}` });
  const fresh = button(hasCodes && shape ? "Random code" : "New noise", () => {
    state.seed += 1;
    seed.textContent = `seed ${state.seed}`;
    newNoise();
    renewed();
  });
  const middle = button("Middle", () => {
    state.w.fill(0);
    [state.u, state.v, state.example] = [0, 0, null];
    showSliders();
    changed();
  }, "all codes at their mean");
  const tour = button("Wander", () => wander(!wandering), "the ring goes about by itself");
  tour.id = "wander";
  block(made("div", { className: "row" }, fresh, ...(hasCodes && shape ? [middle] : []), ...(shape ? [tour] : []), seed));
}

function newNoise() {
  redraw();
  if (!hasCodes || !shape) return;
  state.w = seeded(state.seed).normal(n).map((v) => Math.min(Math.max(v, -REACH), REACH));
  [state.u, state.v, state.example] = [state.w[state.across], part(state.w, 0, state.up), null];
  showSliders();
}

function stepControls() {
  const { options } = state, name = diffusion ? "eta" : "noise";
  block(slider("steps", { min: 1, max: model.n_times ?? 100, value: options.n_steps }, setting("n_steps")).element);
  if (classes) {
    const size = { min: 0, max: 6, step: 0.1, value: options.guidance, digits: 1 };
    const guidance = slider("guidance w, with a class", size, setting("guidance"));
    showGuidance = () => { guidance.input.disabled = state.label === null; };
    showGuidance();
    block(guidance.element);
  }
  const eta = { min: 0, max: 1, step: 0.05, value: options[name], digits: 2 };
  block(slider("noise on the way η", eta, setting(name)).element);
  if (diffusion) return;
  const solvers = Object.keys(SOLVERS).map((solver) => [solver, solver]);
  titled("solver", choice(solvers, () => options.solver, (solver) => { options.solver = solver; renewed(); }).elements);
}

function axisControls(title, choices, then) {  // which of some directions or columns are the axes
  const selects = ["across", "up"].map((name) => {
    const element = made("select", {}, ...choices.map((text, k) => made("option", { value: k, textContent: text })));
    element.value = state[name];
    element.setAttribute("aria-label", `axis ${name}`);
    element.addEventListener("change", () => {
      const other = name === "across" ? "up" : "across", chosen = Number(element.value);
      if (chosen === state[other]) state[other] = state[name];
      state[name] = chosen;
      selects.forEach(([key, select]) => { select.value = state[key]; });
      then();
    });
    return [name, element];
  });
  titled(title, selects.map(([, select]) => select));
}

function codeControls() {  // which directions are the axes of the plane, and sliders for the others
  const most = Math.min(n, 10), holder = made("div"), heading = made("div", { className: "title" });
  const share = (k) => `${(100 * plane.share.data[k]).toFixed(plane.share.data[k] < 0.1 ? 1 : 0)} %`;
  const build = () => {
    const others = range(0, most).filter((k) => k !== state.across && k !== state.up);
    const sliders = others.map((k) => {
      const size = { min: -3, max: 3, step: 0.01, value: state.w[k], digits: 2 };
      return [k, slider(`direction ${k + 1}: ${share(k)}`, size, (v) => {
        state.w[k] = v;
        state.example = null;
        changed();
      })];
    });
    holder.replaceChildren(...sliders.map(([, one]) => one.element));
    showSliders = () => sliders.forEach(([k, one]) => one.set(state.w[k]));
  };
  axisControls("axes of the plane: across, up", range(0, most).map((k) => `${k + 1}: ${share(k)}`), () => {
    [state.u, state.v] = [state.w[state.across], state.w[state.up]];
    build();
    titles();
    changed();
  });
  heading.textContent = n > most ? `the next directions (${n - most} more are not shown)` : "the other directions";
  const idle = plane.share.data.some((part) => part < 0.0005) ? " 0.0 %: the model does not use it." : "";
  const words = `%: how much pictures change along a direction, as a part of their change along all of them.${idle}`;
  block(heading, holder, made("p", { className: "note", textContent: words }));
  build();
}

// ---- words ----

const network = model.type === "VAE" || model.type === "AutoEncoder" ? "decoder" : "generator";

function titles() {
  const plain = n > 1 ? "Codes: z₁ and z₂" : "The code z, across";
  const codes = n > 2 ? `Codes: directions ${state.across + 1} and ${state.up + 1}` : plain;
  byId("planeTitle").textContent = hasCodes ? codes : "Noise: a mix of three";
  byId("pictureTitle").textContent = shape ? "What the model makes of it" : "From noise to data";
}

function words() {
  const weights = numbers.length.toLocaleString("en");
  byId("footer").textContent = `This file holds ${weights} numbers, weights and checks, and loads nothing. It computes in ` +
    "plain JavaScript: look at the source of the page, which has one function for each layer.";
  if (!shape) wordsOfPoints();
  else if (hasCodes) wordsOfCodes(`${shape[0]}×${shape[1]} pixels`);
  else wordsOfNoise(`${shape[0]}×${shape[1]} pixels`);
}

function wordsOfNoise(pixels) {
  const many = n.toLocaleString("en"), steps = inSteps ? " step by step" : "";
  byId("says").textContent = `Each point of the square is a noise of ${many} numbers, mixed from three. ` +
    `The model turns it into ${pixels}${steps}. Drag the ring: similar noise gives similar pictures.`;
  byId("planeNote").textContent = "Behind the ring: what the model makes of noise all over the plane.";
}

function wordsOfCodes(pixels) {
  const many = n > 1 ? `${n.toLocaleString("en")} numbers` : "one number";
  const others = n > 2 ? " Pictures change most along the two axes; sliders move along the other directions." : "";
  byId("says").textContent =
    `Each point of the square is a code z of ${many}, and the ${network} turns it into ${pixels}. Drag the ring.${others}`;
  byId("planeNote").textContent = real.w
    ? "Map: pictures of codes all over the plane. Examples: where the encoder puts real pictures, by class; click one."
    : "Behind the ring: what the model makes of codes all over the plane.";
}

function wordsOfPoints() {
  const decoded = `the ${network} moves it`, layered = "each layer of the flow moves it on";
  const follows = "it follows the velocity that the network predicts";
  const stepped = diffusion ? "the network removes its noise step by step" : follows;
  const way = inSteps ? stepped : isFlow ? layered : decoded;
  byId("says").textContent = `Each dot starts as noise, and ${way}, until it is an example. Its colour says where it ` +
    "began. Drag the ring to start a dot of your own.";
  const notes = [`${PARTICLES} dots${real.x ? ", and real examples in grey" : ""}.`];
  if (hasCodes) notes.push("Only the two ends are real: the straight way shows which noise becomes which point.");
  if (model.n_features > 2) notes.push(`Two of ${model.n_features} columns are drawn.`);
  byId("pictureNote").textContent = notes.join(" ");
}

// ---- start ----

function drags(canvas, move) {  // move(x, y, whether it is the first) with x and y from -1 to 1
  const at = (event) => {
    const box = canvas.getBoundingClientRect();
    return [((event.clientX - box.left) / box.width) * 2 - 1, 1 - ((event.clientY - box.top) / box.height) * 2];
  };
  canvas.addEventListener("pointerdown", (event) => {
    canvas.setPointerCapture(event.pointerId);
    move(...at(event), true);
  });
  canvas.addEventListener("pointermove", (event) => { if (event.buttons) move(...at(event), false); });
}

function dragRing(x, y, first) {
  wander(false);
  if (!(first && pickExample(x * REACH, y * REACH))) placeAt(x * REACH, y * REACH);
}

const ARROWS = { ArrowLeft: [-0.1, 0], ArrowRight: [0.1, 0], ArrowUp: [0, 0.1], ArrowDown: [0, -0.1] };

function pressed(event) {
  const arrow = ARROWS[event.key], target = event.target, space = event.key === " " && !byId("time").hidden;
  if (arrow && target === byId("plane")) placeAt(state.u + arrow[0], state.v + arrow[1]);
  else if (arrow && target === byId("cloud")) { mineAt([mine.w[0] + arrow[0], mine.w[1] + arrow[1]]); drawCloud(); }
  else if (space && !target.closest("button, input, select")) play(!state.playing);
  else return;
  event.preventDefault();
}

function listen() {
  if (shape) drags(byId("plane"), dragRing); else drags(byId("cloud"), dragMine);
  byId("play").addEventListener("click", () => play(!state.playing));
  byId("clock").addEventListener("input", () => scrub(Number(byId("clock").value)));
  byId("strip").addEventListener("pointerdown", (event) => {
    const box = byId("strip").getBoundingClientRect();
    scrub((event.clientX - box.left) / box.width);
  });
  document.addEventListener("keydown", pressed);
  const all = () => { if (shape) drawPlane(); drawAgain(); };
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", all);
  window.addEventListener("resize", all);
}

function start() {
  redraw();
  if (hasCodes && shape && n > 2) newNoise();  // the middle of many codes is a mean of all pictures
  byId("main").hidden = false;
  byId("main").className = shape ? "" : "points";
  byId("planeCard").hidden = byId("picture").hidden = byId("where").hidden = !shape;
  byId("cloud").hidden = Boolean(shape);
  byId("time").hidden = Boolean(shape) && !inSteps;
  byId("strip").hidden = !(shape && inSteps);
  words();
  titles();
  controls();
  if (shape && real.w) {
    const views = [["map", "Map"], ["examples", "Examples"]];
    byId("views").append(...choice(views, () => state.view, (v) => { state.view = v; drawPlane(); }).elements);
  }
  listen();
  changed();
  if (!matchMedia("(prefers-reduced-motion: reduce)").matches) again();
}

function check() {
  const { worst, numbers: count } = compared(model, checks), good = worst <= TOLERANCE;
  document.documentElement.dataset.check = JSON.stringify({ worst, numbers: count, good });
  const [word, sign, size] = good ? ["checked", "≤", worst.toExponential(0)] : ["wrong", ">", worst.toExponential(0)];
  said(`${word}: ${count.toLocaleString("en")} numbers, worst difference from NumPy ${size} ${sign} 1e-5`, good);
}

function bench(times = 60) {  // drags the ring around a circle, and counts
  play(false);
  while (cloud && !cloud.job.next().done);  // all particles have arrived
  const probe = made("canvas", { width: 1, height: 1 }).getContext("2d", { willReadFrequently: true });
  const began = performance.now();
  for (let i = 0; i < times; i++) {
    const angle = (2 * Math.PI * i) / times, place = [Math.cos(angle), Math.sin(angle)];
    state.time = shape ? 1 : i / times;
    if (shape) placeAt(...place.map((v) => 1.6 * v)); else dragMine(...place.map((v) => 0.5 * v));
    probe.drawImage(byId(shape ? "picture" : "cloud"), 0, 0, 1, 1);
    probe.getImageData(0, 0, 1, 1);  // waits until it is drawn
  }
  const rate = (1000 * times) / (performance.now() - began), n_steps = shape ? quick().n_steps : state.options.n_steps;
  document.documentElement.dataset.bench = JSON.stringify({ frames_per_second: rate, n_steps: n_steps ?? null });
  const each = n_steps ? `, with ${n_steps} steps each` : "";
  byId("says").textContent = `Dragging draws ${rate.toFixed(0)} frames a second${each}.`;
}

try {
  check();
  start();
  if (location.hash === "#bench") bench();
} catch (error) {
  failed(error);
}
