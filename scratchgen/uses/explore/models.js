// From noise to examples: what sample() and path() of each model do, with the same names and symbols as in models/*.py.
//
// MODELS.X.path(model, noise, labels, options, rng) yields [t, x_t], from the noise (n, D) to the sample. labels are an
// array of n whole numbers, or null. options replace the settings with these names. MODELS.X.end(model, x_t) is x_t as an
// example, with its pixels or units. `model` has the settings of the Python model as attributes, and its networks.
"use strict";

const MODELS = {};
const last = (path) => { let found; for (const [, x] of path) found = x; return found; };
const same = (model, x) => x;

// ---- random numbers ----

function seeded(seed) {  // uniform and normal numbers from a seed: mulberry32, and Box and Muller's pairs
  let a = (seed * 0x9e3779b9) >>> 0, kept = null;
  const next = () => {
    a = (a + 0x6d2b79f5) >>> 0;
    let t = Math.imul(a ^ (a >>> 15), a | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };
  const one = () => {
    if (kept !== null) { const v = kept; kept = null; return v; }
    const r = Math.sqrt(-2 * Math.log(1 - next())), angle = 2 * Math.PI * next();
    kept = r * Math.sin(angle);
    return r * Math.cos(angle);
  };
  return { uniform: (n) => Float64Array.from({ length: n }, next), normal: (n) => Float64Array.from({ length: n }, one) };
}

function replayed(numbers) {  // the random numbers that NumPy has drawn
  let at = 0;
  const take = (n) => { at += n; return Float64Array.from(numbers.subarray(at - n, at)); };
  return { uniform: take, normal: take };
}

// ---- models with a decoder or a generator: one step from the code z to x ----

const told = (model, z, labels) => (model.conditional ? beside(z, oneHot(labels, model.n_classes)) : z);

MODELS.VAE = {
  *path(model, z, labels, options, rng) {
    yield [0, z];
    const out = forward(model.decoder, told(model, z, labels));
    const mean = model.likelihood === "bernoulli" ? map(out, sigmoid) : out;
    yield [1, options.draw_x ? drawn(model, mean, rng) : mean];
  },
  end: same,
};

function drawn(model, mean, rng) {  // x ~ p(x|z)
  if (model.likelihood === "gaussian") {
    const eps = rng.normal(mean.data.length), sd = Math.sqrt(model.variance);
    return matrix(mean.rows, mean.columns, mean.data.map((mu, i) => mu + sd * eps[i]));
  }
  if (!model.binarize) return mean;
  const u = rng.uniform(mean.data.length);
  return matrix(mean.rows, mean.columns, mean.data.map((p, i) => (u[i] < p ? 1 : 0)));
}

MODELS.AutoEncoder = {
  *path(model, z) {
    yield [0, z];
    const out = forward(model.decoder, z);
    yield [1, model.likelihood === "bernoulli" ? map(out, sigmoid) : out];
  },
  end: same,
};

MODELS.GAN = {
  *path(model, z) {
    yield [0, z];
    yield [1, forward(model.generator, z)];
  },
  end: same,
};

MODELS.WGAN = MODELS.GAN;

MODELS.ConditionalGAN = {
  *path(model, z, labels, options, rng) {
    yield [0, z];
    yield [1, forward(model.generator, beside(z, oneHot(labels, model.n_classes)), rng)];  // with rng, dropout is active
  },
  end: same,
};

// ---- flows: x = f⁻¹(z), one layer after the other ----

MODELS.Flow = {
  *path(model, z, labels) {
    const layers = [...model.flow.layers].reverse();  // after the first: Permute, Coupling, ActNorm, n_layers times
    let x = z, t = 0;
    yield [t, asData(layers, x)];
    for (let i = 0; i < layers.length; i++) {
      x = inverse(layers[i], x, model.conditional ? labels : null);
      const left = layers.slice(i + 1);
      if (i > 0 && (!left.length || left[0].type === "Permute")) yield [++t / model.n_layers, asData(left, x)];
    }
  },
  end: (model, x) => (model.levels ? quantised(model, x) : x),
};

// The features in the order of the data: what the layers that are left would do to their order.
const asData = (layers, x) => layers.filter((layer) => layer.type === "Permute").reduce((h, layer) => inverse(layer, h), x);

const moved = (x, h, u) => zip(x, u, (a, b) => a + h * b);  // x + h u

function quantised(model, x) {  // ⌊L x⌋ / (L - 1)
  const L = model.levels;
  return map(x, (v) => Math.min(Math.max(Math.floor(L * v), 0), L - 1) / (L - 1));
}

// ---- what diffusion and flow matching share: models/parts/denoising.py, predictions.py ----

// (1 + w) predict(labels) - w predict(any), for a guidance w > 0
function guided(model, predict, n, labels, w) {
  const unknown = model.conditional ? full(n, model.n_classes) : null;
  const found = predict(labels ?? unknown);
  return labels && w ? zip(found, predict(unknown), (given, any) => (1 + w) * given - w * any) : found;
}

const COMBINED = {  // each prediction is p x̂_0 + q ε̂
  x0: (x_0) => x_0,
  eps: (x_0, eps) => eps,
  v: (x_0, eps, a, b) => a * eps - b * x_0,
  score: (x_0, eps, a, b) => -eps / b,
  velocity: (x_0, eps, a, b, da, db) => da * x_0 + db * eps,
};

function pair(kind, f, x_t, ...way) {  // [x̂_0, ε̂]: the solution of a x̂_0 + b ε̂ = x_t and p x̂_0 + q ε̂ = f
  const [a, b] = way, p = COMBINED[kind](1, 0, ...way), q = COMBINED[kind](0, 1, ...way), determinant = a * q - b * p;
  return [
    zip(x_t, f, (x, g) => (q * x - b * g) / determinant),
    zip(x_t, f, (x, g) => (a * g - p * x) / determinant),
  ];
}

function converted(kind, f, into, x_t, ...way) {
  const [x_0, eps] = pair(kind, f, x_t, ...way);
  return zip(x_0, eps, (x, e) => COMBINED[into](x, e, ...way));
}

function unscaled(model, x_0) {
  const x = inverse(model.scaler, x_0);
  return model.levels ? quantised(model, x) : x;
}

// ---- diffusion: models/ddpm.py, models/parts/diffusion.py ----

function alphaBars(schedule, T) {  // ᾱ_0 = 1, ᾱ_1, ..., ᾱ_T
  const f = (t) => Math.cos((0.5 * Math.PI * (t / T + 0.008)) / 1.008) ** 2, alpha_bar = [1];
  for (let t = 1; t <= T; t++) {
    const linear = (1e-4 + (T > 1 ? ((0.02 - 1e-4) * (t - 1)) / (T - 1) : 0)) * (1000 / T);
    const beta = schedule === "linear" ? linear : 1 - f(t) / f(t - 1);
    alpha_bar.push(alpha_bar[t - 1] * (1 - Math.min(beta, 0.999)));
  }
  return alpha_bar;
}

const evenRound = (v) => (v % 1 === 0.5 ? 2 * Math.round(v / 2) : Math.round(v));  // as Python rounds

function denoise(model, alpha_bar, x_t, t, labels, w, guess) {  // x̂_0 from x_t at time t
  const seen = model.self_conditioning ? beside(x_t, guess ?? matrix(x_t.rows, x_t.columns)) : x_t;
  const way = [Math.sqrt(alpha_bar[t]), Math.sqrt(1 - alpha_bar[t])];
  const predict = (given) => {
    const f = forward(model.denoiser, [seen, full(x_t.rows, t), given]);
    return model.predict === "logits" ? map(f, (l) => 2 * sigmoid(l) - 1) : pair(model.predict, f, x_t, ...way)[0];
  };
  const x_0 = guided(model, predict, x_t.rows, labels, w);
  return model.clip_x0 ? clipped(model.scaler, x_0) : x_0;
}

MODELS.DDPM = {
  *path(model, x_T, labels, options, rng) {  // ddim: x_s = √ᾱ_s x̂_0 + √(1 - ᾱ_s - σ²) ε̂ + σ ε
    const { n_steps, eta, guidance, guidance_start } = { ...model, ...options }, T = model.n_times;
    const alpha_bar = (model.alpha_bar ??= alphaBars(model.schedule, T));
    const taus = range(0, n_steps + 1).map((i) => evenRound((T * (n_steps - i)) / n_steps));
    let x = x_T, x_0 = null;
    yield [T, x];
    for (let i = 0; i < n_steps; i++) {
      const t = taus[i], s = taus[i + 1], now = alpha_bar[t], then = alpha_bar[s];
      x_0 = denoise(model, alpha_bar, x, t, labels, t <= (1 - guidance_start) * T ? guidance : 0, x_0);
      const variance = ((eta ** 2 * (1 - then)) / (1 - now)) * (1 - now / then);  // σ²
      const signal = Math.sqrt(then), noise = Math.sqrt(Math.max(0, 1 - then - variance));
      x = zip(x, x_0, (xt, x0) => signal * x0 + (noise * (xt - Math.sqrt(now) * x0)) / Math.sqrt(1 - now));
      if (variance > 0) x = moved(x, Math.sqrt(variance), matrix(x.rows, x.columns, rng.normal(x.data.length)));
      yield [s, x, x_0];  // and the guess from which this step was made
    }
  },
  end: unscaled,
};

// ---- flow matching: models/flow_matching.py, models/parts/ode.py ----

const line = (t) => [t, 1 - t, 1, -1];  // a, b, a′, b′ of x_t = a x + b ε
const TIMES = 100, LAST = 1 - 1e-3;

function velocity(model, x_t, t, labels, w) {  // û at x_t and a time t
  if (model.predict !== "velocity") t = Math.min(t, LAST);
  const predict = (given) => {
    const f = forward(model.denoiser, [x_t, full(x_t.rows, TIMES * t), given]);
    if (model.predict === "velocity") return f;
    return converted("x0", model.predict === "x0" ? f : map(f, (l) => 2 * sigmoid(l) - 1), "velocity", x_t, ...line(t));
  };
  return guided(model, predict, x_t.rows, labels, w);
}

const SOLVERS = {
  euler: (u, x, t, h) => moved(x, h, u(x, t)),
  heun(u, x, t, h) {
    const first = u(x, t);
    return moved(x, 0.5 * h, sum(first, u(moved(x, h, first), t + h)));
  },
  rk4(u, x, t, h) {
    const k1 = u(x, t), k2 = u(moved(x, 0.5 * h, k1), t + 0.5 * h), k3 = u(moved(x, 0.5 * h, k2), t + 0.5 * h);
    const k4 = u(moved(x, h, k3), t + h);
    return moved(x, h / 6, sum(sum(k1, k4), map(sum(k2, k3), (v) => 2 * v)));
  },
};

MODELS.FlowMatching = {
  *path(model, eps, labels, options, rng) {
    const { n_steps, solver, noise: eta, guidance, guidance_start } = { ...model, ...options };
    const u = (x, t) => velocity(model, x, t, labels, t >= guidance_start ? guidance : 0);
    let x = eps;
    yield [0, x];
    for (let i = 0; i < n_steps; i++) {
      const t = i / n_steps, after = (i + 1) / n_steps, h = after - t, end = i === n_steps - 1;
      if (!eta) {
        x = SOLVERS[end && model.predict !== "velocity" ? "euler" : solver](u, x, t, h);  // it ends at x̂
      } else {  // dx = (u + ½ g² s) dt + g dW
        const g = end ? 0 : Math.sqrt(2 * eta * (1 - t)), field = u(x, t);
        const score = converted("velocity", field, "score", x, ...line(t));
        x = moved(x, h, zip(field, score, (v, s) => v + 0.5 * g * g * s));
        if (g) x = moved(x, g * Math.sqrt(h), matrix(x.rows, x.columns, rng.normal(x.data.length)));
      }
      yield [after, x];
    }
  },
  end: unscaled,
};

MODELS.Reflow = MODELS.FlowMatching;

// ---- the page checks itself ----

// { worst, numbers }: the worst difference from what NumPy found for the same noise, and how many numbers were compared. The
// difference is relative where numbers are larger than 1.
function compared(model, checks) {
  let worst = 0, numbers = 0;
  for (const check of checks) {
    const path = [...MODELS[model.type].path(model, check.noise, check.labels, check.options, replayed(check.drawn.data))];
    const found = path.slice(-check.frames.length).map(([, x]) => x);
    found.push(MODELS[model.type].end(model, found.at(-1)));
    [...check.frames, check.x].forEach((wanted, i) => {
      if (wanted.data.length !== found[i].data.length) throw new Error("the page makes examples of another size than NumPy");
      const largest = wanted.data.reduce((a, b) => Math.max(a, Math.abs(b)), 1);
      wanted.data.forEach((v, k) => {
        const difference = Math.abs(found[i].data[k] - v) / largest;
        if (!(difference <= worst)) worst = Number.isNaN(difference) ? Infinity : difference;
      });
      numbers += wanted.data.length;
    });
  }
  return { worst, numbers };
}

// ---- what Python has written into the page ----

function decoded(text) {  // base64 -> float32
  const letters = atob(text), bytes = new Uint8Array(letters.length);
  for (let i = 0; i < bytes.length; i++) bytes[i] = letters.charCodeAt(i);
  return new Float32Array(bytes.buffer);
}

function opened(value, numbers) {  // { at, shape } becomes an array, with rows a matrix; also inside lists and objects
  if (Array.isArray(value)) return value.map((item) => opened(item, numbers));
  if (value === null || typeof value !== "object") return value;
  if ("at" in value) {
    const size = value.shape.reduce((a, b) => a * b, 1), data = numbers.subarray(value.at, value.at + size);
    return value.rows ? matrix(...value.shape, Float64Array.from(data)) : { shape: value.shape, data };
  }
  return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, opened(item, numbers)]));
}
