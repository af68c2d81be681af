// The layers of scratchgen, forward only: what nn/layers.py, nn/activations.py, nn/norms.py, nn/embeddings.py and
// models/parts/ compute, with the same names. A layer is an object with the attributes of the Python layer: its type, its
// weights (W, b, ...), its numbers (a, eps, ...) and the layers inside it. forward(layer, x, rng) looks up the function of
// its type below.
//
// x (B, n) is { rows: B, columns: n, data }, one row after the other. A weight is { shape, data }. Sums are in 64 bits.
"use strict";

const FORWARD = {}, INVERSE = {};
const forward = (layer, x, rng = null) => FORWARD[layer.type](layer, x, rng);
const inverse = (layer, y, labels) => INVERSE[layer.type](layer, y, labels);

// ---- arrays ----

const matrix = (rows, columns, data = new Float64Array(rows * columns)) => ({ rows, columns, data });
const map = (x, f) => matrix(x.rows, x.columns, x.data.map(f));
const full = (n, value) => new Float64Array(n).fill(value);

function zip(x, y, f) {  // f of each two numbers of x and y, both (B, n)
  const out = matrix(x.rows, x.columns);
  for (let i = 0; i < out.data.length; i++) out.data[i] = f(x.data[i], y.data[i]);
  return out;
}

function columns(x, f) {  // f(number, its column j, its row)
  const out = matrix(x.rows, x.columns);
  for (let i = 0; i < out.data.length; i++) out.data[i] = f(x.data[i], i % x.columns, Math.floor(i / x.columns));
  return out;
}

function beside(x, c) {  // [x, c]
  const out = matrix(x.rows, x.columns + c.columns);
  for (let b = 0; b < x.rows; b++) {
    out.data.set(x.data.subarray(b * x.columns, (b + 1) * x.columns), b * out.columns);
    out.data.set(c.data.subarray(b * c.columns, (b + 1) * c.columns), b * out.columns + x.columns);
  }
  return out;
}

function picked(x, order) {  // the columns of x in another order, or some of them
  const out = matrix(x.rows, order.length);
  for (let b = 0; b < x.rows; b++)
    for (let j = 0; j < order.length; j++) out.data[b * order.length + j] = x.data[b * x.columns + order[j]];
  return out;
}

const range = (start, end) => Array.from({ length: end - start }, (_, i) => start + i);

function oneHot(labels, n) {
  const out = matrix(labels.length, n);
  labels.forEach((label, b) => { out.data[b * n + label] = 1; });
  return out;
}

function linear(x, W, b = null) {  // x W + b, four rows at once: then each number of W is read once for four of them
  const [n, m] = W.shape, w = W.data, B = x.rows, y = new Float64Array(B * m);
  if (x.columns !== n) throw new Error(`a layer got rows of ${x.columns} numbers, expected ${n}`);
  let row = 0;
  for (; row + 4 <= B; row += 4) {
    const [y0, y1, y2, y3] = [0, 1, 2, 3].map((i) => y.subarray((row + i) * m, (row + i + 1) * m));
    for (let k = 0, at = row * n; k < n; k++, at++) {
      const x0 = x.data[at], x1 = x.data[at + n], x2 = x.data[at + 2 * n], x3 = x.data[at + 3 * n];
      if (x0 === 0 && x1 === 0 && x2 === 0 && x3 === 0) continue;
      for (let j = 0, p = k * m; j < m; j++, p++) {
        const v = w[p];
        y0[j] += x0 * v; y1[j] += x1 * v; y2[j] += x2 * v; y3[j] += x3 * v;
      }
    }
  }
  for (; row < B; row++) {
    const out = y.subarray(row * m, (row + 1) * m);
    for (let k = 0; k < n; k++) {
      const v = x.data[row * n + k];
      if (v !== 0) for (let j = 0, p = k * m; j < m; j++, p++) out[j] += v * w[p];
    }
  }
  if (b) for (let i = 0; i < y.length; i++) y[i] += b.data[i % m];
  return matrix(B, m, y);
}

// ---- layers ----

FORWARD.Linear = (layer, x) => linear(x, layer.W, layer.b);
FORWARD.Sequential = (layer, x, rng) => layer.layers.reduce((h, inner) => forward(inner, h, rng), x);
FORWARD.Residual = (layer, x, rng) => zip(x, forward(layer.body, x, rng), (a, f) => a + f);

FORWARD.Dropout = (layer, x, rng) => {  // y = x m / (1 - p), when there are random numbers; else y = x
  if (!rng || !layer.p) return x;
  const u = rng.uniform(x.data.length);
  return matrix(x.rows, x.columns, x.data.map((v, i) => (u[i] >= layer.p ? v / (1 - layer.p) : 0)));
};

FORWARD.Maxout = (layer, x) => {  // the largest of n_pieces numbers for each unit
  const h = forward(layer.pieces, x), k = layer.n_pieces, y = matrix(h.rows, h.columns / k);
  for (let i = 0; i < y.data.length; i++) y.data[i] = Math.max(...h.data.subarray(i * k, (i + 1) * k));
  return y;
};

// ---- activations ----

const sigmoid = (v) => 0.5 + 0.5 * Math.tanh(0.5 * v);
const softplus = (v) => Math.max(v, 0) + Math.log1p(Math.exp(-Math.abs(v)));
const gelu = (v) => 0.5 * v * (1 + Math.tanh(Math.sqrt(2 / Math.PI) * (v + 0.044715 * v * v * v)));

FORWARD.ReLU = (layer, x) => map(x, (v) => Math.max(v, 0));
FORWARD.LeakyReLU = (layer, x) => map(x, (v) => Math.max(v, layer.a * v));
FORWARD.ELU = (layer, x) => map(x, (v) => (v > 0 ? v : layer.a * Math.expm1(v)));
FORWARD.Tanh = (layer, x) => map(x, Math.tanh);
FORWARD.Sigmoid = (layer, x) => map(x, sigmoid);
FORWARD.Softplus = (layer, x) => map(x, softplus);
FORWARD.SiLU = (layer, x) => map(x, (v) => v * sigmoid(v));
FORWARD.GELU = (layer, x) => map(x, gelu);

// ---- norms ----

FORWARD.BatchNorm = (layer, x) => columns(x, (v, j) => {  // by the running mean and variance
  const s = Math.sqrt(layer.running_variance.data[j] + layer.eps);
  return ((v - layer.running_mean.data[j]) / s) * layer.gamma.data[j] + layer.beta.data[j];
});

FORWARD.LayerNorm = (layer, x) => {  // y = γ x̂ + β, x̂ standardised over an example's features
  const n = x.columns, out = matrix(x.rows, n);
  for (let b = 0; b < x.rows; b++) {
    const row = x.data.subarray(b * n, (b + 1) * n);
    let m = 0, variance = 0;
    for (const v of row) m += v / n;
    for (const v of row) variance += ((v - m) * (v - m)) / n;
    const s = Math.sqrt(variance + layer.eps);
    for (let j = 0; j < n; j++) out.data[b * n + j] = ((row[j] - m) / s) * layer.gamma.data[j] + layer.beta.data[j];
  }
  return out;
};

FORWARD.RunningMoments = (layer, x) => x;

// ---- embeddings ----

FORWARD.Embedding = (layer, labels) => {  // a row of the table W for each label
  const m = layer.W.shape[1], out = matrix(labels.length, m);
  labels.forEach((label, b) => out.data.set(layer.W.data.subarray(label * m, (label + 1) * m), b * m));
  return out;
};

FORWARD.TimeEmbedding = (layer, t) => {  // [cos ω t, sin ω t]
  const half = layer.omega.data.length, out = matrix(t.length, 2 * half);
  for (let b = 0; b < t.length; b++) for (let k = 0; k < half; k++) {
    const angle = t[b] * layer.omega.data[k];
    out.data[b * 2 * half + k] = Math.cos(angle);
    out.data[b * 2 * half + half + k] = Math.sin(angle);
  }
  return out;
};

FORWARD.Concat = (layer, [x, c]) => beside(x, c);

// ---- the network of diffusion and flow matching: models/parts/denoiser.py ----

const sum = (x, y) => zip(x, y, (a, b) => a + b);

FORWARD.Block = (layer, [h, e]) => {  // h' = h + W₂ SiLU(W₁ norm(h) + W_e e)
  const u = forward(layer.before, h), c = forward(layer.condition, e);
  return sum(h, forward(layer.after, sum(u, c)));
};

FORWARD.Denoiser = (layer, [x, t, labels]) => {  // e = SiLU(W waves(t) + table[label]);  f = W norm(h)
  let e = forward(layer.time, t);
  if (labels) e = sum(e, forward(layer.table, labels));
  e = forward(layer.activation, e);
  let h = forward(layer.enter, x);
  for (const block of layer.blocks) h = forward(block, [h, e]);
  return forward(layer.leave, h);
};

FORWARD.Scaling = (layer, x) => columns(x, (v, j) => (v - layer.mean.data[j]) / layer.std.data[j]);
INVERSE.Scaling = (layer, x_0) => columns(x_0, (v, j) => v * layer.std.data[j] + layer.mean.data[j]);
const clipped = (layer, x_0) =>
  columns(x_0, (v, j) => Math.min(Math.max(v, layer.low.data[j]), layer.high.data[j]));

// ---- flows, from noise back to data: models/parts/invertible.py, coupling.py, spline.py, masked.py ----

INVERSE.Chain = (layer, y, labels) => layer.layers.reduceRight((x, inner) => inverse(inner, x, labels), y);
INVERSE.ActNorm = (layer, y) => columns(y, (v, j) => (v - layer.b.data[j]) * Math.exp(-layer.s.data[j]));
INVERSE.Logit = (layer, y) => map(y, (v) => (sigmoid(v) - layer.alpha) / layer.slope);
INVERSE.Permute = (layer, y) => {
  const x = matrix(y.rows, y.columns), n = y.columns;
  for (let b = 0; b < y.rows; b++)
    layer.order.data.forEach((from, j) => { x.data[b * n + from] = y.data[b * n + j]; });  // y_j was x_from
  return x;
};

INVERSE.Affine = (layer, y, h) => columns(y, (v, j, b) => {  // x = (y - t) e⁻ˢ, with (t, a) = h and s = c tanh(a / c)
  const at = (b * y.columns + j) * 2, s = layer.c * Math.tanh(h.data[at + 1] / layer.c);
  return (v - h.data[at]) * Math.exp(-s);
});

const LEAST = 1e-3;  // the least width and height of a bin, as a share of all, and the least slope at a knot

INVERSE.Spline = (layer, y, h) => columns(y, (v, j, b) => {  // x, by solving y = g(x) in its bin, a quadratic equation in ξ
  const { K, c: reach, n_params } = layer;
  if (!(v > -reach && v < reach)) return v;
  const at = (b * y.columns + j) * n_params, of = (from, length) => h.data.subarray(at + from, at + from + length);
  const widths = binSizes(of(0, K), K, reach), heights = binSizes(of(K, K), K, reach), slopes = of(2 * K, K - 1);
  const slope = (k) => (k < 0 || k > K - 2 ? 1 : LEAST + softplus(slopes[k] + Math.log(Math.expm1(1 - LEAST))));
  let k = 0, x_k = -reach, y_k = -reach;
  while (k < K - 1 && v >= y_k + heights[k]) { x_k += widths[k]; y_k += heights[k]; k++; }
  const w = widths[k], height = heights[k], low = slope(k - 1), high = slope(k);
  const s = height / w, rise = v - y_k, curved = rise * (low + high - 2 * s);
  const a2 = height * (s - low) + curved, a1 = height * low - curved, a0 = -s * rise;
  return x_k + w * ((2 * a0) / (-a1 - Math.sqrt(Math.max(a1 * a1 - 4 * a2 * a0, 0))));
});

function binSizes(logits, K, reach) {  // 2c (LEAST + (1 - K LEAST) softmax)
  const largest = Math.max(...logits), e = Array.from(logits, (l) => Math.exp(l - largest));
  const total = e.reduce((a, b) => a + b);
  return e.map((v) => 2 * reach * (LEAST + (1 - K * LEAST) * (v / total)));
}

INVERSE.Coupling = (layer, y, labels) => {  // x_a = y_a,  x_b = g⁻¹(y_b; h),  h = net(y_a)
  const y_a = picked(y, range(0, layer.n_a)), y_b = picked(y, range(layer.n_a, layer.n));
  let u = forward(layer.enter, y_a);
  if (labels) u = sum(u, forward(layer.table, labels));
  return beside(y_a, inverse(layer.g, y_b, forward(layer.rest, u)));
};

INVERSE.Autoregressive = (layer, y, labels) => {  // n passes: the first makes x_1 right, the second x_2, and so on
  let x = matrix(y.rows, y.columns);
  for (let i = 0; i < layer.n; i++) {
    let h = forward(layer.network, [x, 0]);
    if (labels) h = sum(h, forward(layer.table, labels));
    x = inverse(layer.g, y, h);
  }
  return x;
};

FORWARD.MaskedLinear = (layer, [x, M]) => {  // y = x (W ∘ M) + b
  layer.masked ??= { shape: layer.W.shape, data: layer.W.data.map((v, i) => (M[i] ? v : 0)) };
  return linear(x, layer.masked, layer.b);
};

FORWARD.MaskedMLP = (layer, [x, k]) => {  // the outputs for a feature see only the features before it
  const masks = (layer.masks ??= masksOf(layer, k));
  let h = x;
  layer.hidden.forEach((inner, i) => { h = forward(layer.relu, forward(inner, [h, masks[i]])); });
  if (layer.direct) h = forward(layer.concat, [h, x]);
  return forward(layer.output, [h, masks.at(-1)]);
};

function masksOf(layer, k) {  // M_ij says whether output j sees input i: by their degrees
  const n = layer.degree.shape[1], degree = Array.from(layer.degree.data.subarray(k * n, (k + 1) * n));
  const cuts = [0, ...layer.cuts, n], parts = range(0, cuts.length - 1).map((i) => degree.slice(cuts[i], cuts[i + 1]));
  const [features, ...units] = parts, repeat = (list, times) => list.flatMap((d) => Array(times).fill(d));
  const table = (below, above, sees) => below.flatMap((i) => above.map((j) => sees(i, j)));
  const inputs = repeat(features, layer.n_in), masks = [];
  let below = inputs;
  for (const unit of units) { masks.push(table(below, unit, (i, j) => i <= j)); below = unit; }
  const outputs = repeat(features, layer.output.W.shape[1] / features.length);
  masks.push(table(layer.direct ? [...below, ...inputs] : below, outputs, (i, j) => i < j));
  return masks;
}
