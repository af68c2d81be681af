"""The C++ of all kernels for the CPU, for one type of number. compiler.py compiles it, native.py calls it.

An elementwise kernel becomes a loop over n numbers that lie side by side, which compilers turn into vector instructions.
`over` calls such a loop for arrays of any layout and broadcasts them as NumPy does: it walks along the outer axes. Where the
numbers along the last axis do not lie side by side, it copies pieces of them into a small buffer that stays in the cache.
"""

import re

from .elementwise import ACTIVATIONS, KERNELS, activation_kernels
from .vector_math import functions

REAL = {"float32": "float", "float64": "double"}
BAD_LAYOUT, BAD_SHAPE = 1, 2  # what a function returns if it has done nothing, because of how its arrays lie or fit

# Array is the beginning of NumPy's array object, which NumPy keeps as it is (native.py checks that). {head}: the size of
# what Python puts in front of it.
HEAD = """
#include <stddef.h>
typedef ptrdiff_t Size;
typedef {real} T;
enum {{ AXES = 8, ARRAYS = 16, PIECE = 256, BAD_LAYOUT = {bad_layout}, BAD_SHAPE = {bad_shape} }};
struct Array {{ char head[{head}]; char* data; int axes; Size* shape; Size* strides; }};

// Whether the numbers of each row of a table lie side by side. size: bytes of a number.
static inline bool in_rows(const Array* a, Size size = sizeof(T)) {{
    const bool rows = a->strides[0] % size == 0 && (a->strides[1] == size || a->shape[1] == 1);
    return a->shape[0] * a->shape[1] == 0 || ((size_t)a->data % size == 0 && rows);
}}

extern "C" int is_array(Array* a, char* data, Size rows, Size columns, Size down, Size right) {{
    return a->data == data && a->axes == 2 && a->shape[0] == rows && a->shape[1] == columns
        && a->strides[0] == down && a->strides[1] == right;
}}
"""

OVER = """
typedef void Loop(Size n, T* const* arrays, const double* numbers);

// Call loop on pieces of n arrays, the inputs first, whose numbers lie side by side. The last array has the full shape.
static int over(Loop* loop, Array* const* arrays, int inputs, int n, const double* numbers) {
    const Array* full = arrays[n - 1];
    Size shape[AXES] = {1}, steps[ARRAYS][AXES];  // the axes from the last to the first, and the steps in numbers
    int axes = 0;
    bool empty = false, bad = false;
    if (full->axes > AXES) return BAD_LAYOUT;
    for (int k = 0; k < n; k++) {
        if (arrays[k]->axes > full->axes || (k >= inputs && arrays[k]->axes != full->axes)) return BAD_SHAPE;
        bad = bad || (size_t)arrays[k]->data % sizeof(T);
        steps[k][0] = 1;
    }
    for (int axis = 1; axis <= full->axes; axis++) {
        Size length = full->shape[full->axes - axis], step[ARRAYS];
        bool joins = axes > 0;  // whether the numbers go on along this axis as they end along the one before
        for (int k = 0; k < n; k++) {
            const Array* a = arrays[k];
            Size own = axis <= a->axes ? a->shape[a->axes - axis] : 1;
            if (own != length && (own != 1 || k >= inputs)) return BAD_SHAPE;
            Size bytes = own == 1 ? 0 : a->strides[a->axes - axis];
            bad = bad || bytes % (Size)sizeof(T) || (k >= inputs && own > 1 && bytes == 0);
            step[k] = bytes / (Size)sizeof(T);
            joins = joins && step[k] == steps[k][axes - 1] * shape[axes - 1];
        }
        empty = empty || length == 0;
        if (length == 1) continue;
        if (joins) { shape[axes - 1] *= length; continue; }
        for (int k = 0; k < n; k++) steps[k][axes] = step[k];
        shape[axes++] = length;
    }
    if (empty || bad) return empty ? 0 : BAD_LAYOUT;
    bool scattered = false;
    for (int k = 0; k < n; k++) scattered = scattered || steps[k][0] != 1;
    Size at[AXES] = {0}, length = shape[0];
    T *first[ARRAYS], *now[ARRAYS], buffers[ARRAYS][PIECE];
    for (int k = 0; k < n; k++) first[k] = (T*)arrays[k]->data;
    for (;;) {
        if (!scattered) loop(length, first, numbers);
        else for (Size start = 0; start < length; start += PIECE) {
            Size m = length - start < PIECE ? length - start : (Size)PIECE;
            for (int k = 0; k < n; k++) {
                Size step = steps[k][0];
                now[k] = first[k] + start * step;
                if (step == 1) continue;
                for (Size i = 0; i < m; i++) buffers[k][i] = now[k][i * step];
                now[k] = buffers[k];
            }
            loop(m, now, numbers);
            for (int k = inputs; k < n; k++) {
                Size step = steps[k][0];
                if (step == 1) continue;
                for (Size i = 0; i < m; i++) first[k][(start + i) * step] = buffers[k][i];
            }
        }
        int axis = 1;
        for (; axis < axes; axis++) {  // one step along the next axis; at its end back, and on along the one after
            if (++at[axis] < shape[axis]) {
                for (int k = 0; k < n; k++) first[k] += steps[k][axis];
                break;
            }
            for (int k = 0; k < n; k++) first[k] -= steps[k][axis] * (shape[axis] - 1);
            at[axis] = 0;
        }
        if (axis >= axes) return 0;
    }
}
"""

ELEMENTWISE = """
static void loop_{name}(Size n, T* const* arrays, const double* numbers) {{
    {pointers}
    {numbers}
    #pragma omp simd
    for (Size i = 0; i < n; i++) {{ {load} {code} {store} }}
}}
extern "C" int {name}({parameters}) {{
    Array* const arrays[] = {{{arrays}}};
    const double numbers[] = {{{given}}};
    return over(loop_{name}, arrays, {n_inputs}, {n_arrays}, numbers);
}}
"""

# Sums pieces of 512 columns, so that the sums stay in the cache while all rows pass.
ADD_ROWS = """
extern "C" int add_rows_{name}(Array* db, Array* dy_, Array* x_, Array* y_, Array* dx_, double a_) {{
    if (dy_->axes != 2 || db->axes != 1 || db->shape[0] != dy_->shape[1]) return BAD_SHAPE;
    Array* const tables[] = {{dy_, x_, y_, dx_}};
    Size step[4], rows = dy_->shape[0], columns = dy_->shape[1];
    for (int k = 0; k < 4; k++) {{
        const Array* a = tables[k];
        if (a->axes != 2 || a->shape[0] != rows || a->shape[1] != columns) return BAD_SHAPE;
        if (!in_rows(a)) return BAD_LAYOUT;
        step[k] = a->strides[0] / (Size)sizeof(T);
    }}
    if (columns > 1 && db->strides[0] != sizeof(T)) return BAD_LAYOUT;
    const T a = a_;
    for (Size start = 0; start < columns; start += 512) {{
        const Size n = columns - start < 512 ? columns - start : 512;
        T sums[512] = {{0}}, *total = (T*)db->data + start;
        for (Size row = 0; row < rows; row++) {{
            const T* const dys = (T*)dy_->data + row * step[0] + start;
            {pointers}
            #pragma omp simd
            for (Size i = 0; i < n; i++) {{ {body} }}
        }}
        #pragma omp simd
        for (Size i = 0; i < n; i++) total[i] += sums[i];
    }}
    return 0;
}}
"""

# Functions on tables, row by row, which only the CPU has: compiled.py has a form for each, tests/kernels/test_native.py an
# entry in row_functions. They change nothing before they have looked at how their arrays lie and fit.
ROWS = """
// Whether two matrices may share memory, by their first and last numbers.
static bool overlap(const Array* a, const Array* b) {
    const char* a_end = a->data + (a->shape[0] - 1) * a->strides[0] + a->shape[1] * a->strides[1];
    const char* b_end = b->data + (b->shape[0] - 1) * b->strides[0] + b->shape[1] * b->strides[1];
    return a->data < b_end && b->data < a_end;
}

static inline bool table(const Array* a, Size rows, Size columns) {
    return a->axes == 2 && a->shape[0] == rows && a->shape[1] == columns;
}
static inline bool vector(const Array* a, Size n) { return a->axes == 1 && a->shape[0] == n; }
static inline bool side_by_side(const Array* a, Size size = sizeof(T)) {
    return (size_t)a->data % size == 0 && (a->strides[0] == size || a->shape[0] <= 1);
}
template <class Number = T> static inline Number* row_of(const Array* a, Size row) {
    return (Number*)(a->data + row * a->strides[0]);
}

template <bool add> static int product_with_mask(Array* W_, Array* M_, Array* out_) {
    if (W_->axes != 2) return BAD_SHAPE;
    const Size rows = W_->shape[0], columns = W_->shape[1];
    if (!table(M_, rows, columns) || !table(out_, rows, columns)) return BAD_SHAPE;
    if (!in_rows(W_) || !in_rows(M_, 1) || !in_rows(out_) || overlap(W_, out_)) return BAD_LAYOUT;
    for (Size row = 0; row < rows; row++) {
        const T* W = row_of(W_, row);
        const unsigned char* M = row_of<unsigned char>(M_, row);
        T* out = row_of(out_, row);
        #pragma omp simd
        for (Size i = 0; i < columns; i++) out[i] = (add ? out[i] : T(0)) + W[i] * M[i];
    }
    return 0;
}
extern "C" int masked(Array* W, Array* M, Array* out) { return product_with_mask<false>(W, M, out); }
extern "C" int add_masked(Array* W, Array* M, Array* out) { return product_with_mask<true>(W, M, out); }

// labels: whole numbers of 64 bits. counts and sums are 0 at first.
extern "C" int sum_by_label(Array* rows_, Array* labels_, Array* counts_, Array* sums_) {
    if (rows_->axes != 2) return BAD_SHAPE;
    const Size rows = rows_->shape[0], columns = rows_->shape[1], n = sums_->shape[0];
    if (!vector(labels_, rows) || !vector(counts_, n) || !table(sums_, n, columns)) return BAD_SHAPE;
    if (!in_rows(rows_) || !side_by_side(labels_, 8)) return BAD_LAYOUT;
    const long long* labels = (long long*)labels_->data;
    for (Size row = 0; row < rows; row++) if (labels[row] < 0 || labels[row] >= n) return BAD_SHAPE;
    for (Size row = 0; row < rows; row++) {
        const T* from = row_of(rows_, row);
        T* sums = row_of(sums_, labels[row]);
        ((T*)counts_->data)[labels[row]] += 1;
        for (Size i = 0; i < columns; i++) sums[i] += from[i];
    }
    return 0;
}

// values: -log p of each row's label, which is a whole number of 64 bits. d: scale times the gradient.
extern "C" int softmax_cross_entropy(Array* logits_, Array* labels_, Array* values_, Array* d_, double scale_) {
    if (logits_->axes != 2) return BAD_SHAPE;
    const Size rows = logits_->shape[0], n = logits_->shape[1];
    if (n == 0 || !vector(labels_, rows)) return BAD_SHAPE;
    if (!in_rows(logits_) || !side_by_side(labels_, 8)) return BAD_LAYOUT;
    const long long* labels = (long long*)labels_->data;
    const T scale = scale_;
    for (Size row = 0; row < rows; row++) if (labels[row] < 0 || labels[row] >= n) return BAD_SHAPE;
    for (Size row = 0; row < rows; row++) {
        const T* logits = row_of(logits_, row);
        T *d = row_of(d_, row), largest = logits[0], sum = 0;
        #pragma omp simd reduction(max : largest)  // of numbers alone: nan comes into the sum
        for (Size i = 1; i < n; i++) largest = logits[i] > largest ? logits[i] : largest;
        #pragma omp simd reduction(+ : sum)
        for (Size i = 0; i < n; i++) sum += d[i] = exp(logits[i] - largest);
        ((T*)values_->data)[row] = log(sum) - (logits[labels[row]] - largest);
        const T share = scale / sum;
        #pragma omp simd
        for (Size i = 0; i < n; i++) d[i] *= share;
        d[labels[row]] -= scale;
    }
    return 0;
}

// moments: the mean and 1 / s of each row.
extern "C" int layer_norm(Array* x_, Array* gamma_, Array* beta_, Array* moments_, Array* y_, double eps) {
    if (x_->axes != 2) return BAD_SHAPE;
    const Size rows = x_->shape[0], n = x_->shape[1];
    if (n == 0 || !vector(gamma_, n) || !vector(beta_, n)) return BAD_SHAPE;
    if (!in_rows(x_) || !side_by_side(gamma_) || !side_by_side(beta_)) return BAD_LAYOUT;
    const T *gamma = (T*)gamma_->data, *beta = (T*)beta_->data;
    for (Size row = 0; row < rows; row++) {
        const T* x = row_of(x_, row);
        T *y = row_of(y_, row), *moments = row_of(moments_, row), sum = 0, squares = 0;
        #pragma omp simd reduction(+ : sum)
        for (Size i = 0; i < n; i++) sum += x[i];
        const T mean = sum / n;
        #pragma omp simd reduction(+ : squares)
        for (Size i = 0; i < n; i++) squares += (x[i] - mean) * (x[i] - mean);
        const T scale = 1 / sqrt(squares / n + T(eps));
        #pragma omp simd
        for (Size i = 0; i < n; i++) y[i] = (x[i] - mean) * scale * gamma[i] + beta[i];
        moments[0] = mean, moments[1] = scale;
    }
    return 0;
}

extern "C" int layer_norm_backward(
    Array* dy_, Array* x_, Array* gamma_, Array* moments_, Array* dgamma_, Array* dbeta_, Array* dx_, double learn
) {
    const Size rows = x_->shape[0], n = x_->shape[1];
    if (!table(dy_, rows, n) || !vector(dgamma_, n) || !vector(dbeta_, n)) return BAD_SHAPE;
    if (!in_rows(dy_) || !in_rows(x_)) return BAD_LAYOUT;
    if (!side_by_side(gamma_) || !side_by_side(dgamma_) || !side_by_side(dbeta_)) return BAD_LAYOUT;
    T *gamma = (T*)gamma_->data, *dgamma = (T*)dgamma_->data, *dbeta = (T*)dbeta_->data;
    for (Size row = 0; row < rows; row++) {
        const T *dy = row_of(dy_, row), *x = row_of(x_, row), *moments = row_of(moments_, row);
        const T mean = moments[0], scale = moments[1];
        T *dx = row_of(dx_, row), sum = 0, along = 0;
        if (learn) {
            #pragma omp simd
            for (Size i = 0; i < n; i++) dgamma[i] += dy[i] * ((x[i] - mean) * scale), dbeta[i] += dy[i];
        }
        #pragma omp simd reduction(+ : sum, along)
        for (Size i = 0; i < n; i++) {
            const T g = dy[i] * gamma[i];
            sum += g, along += g * ((x[i] - mean) * scale);
        }
        sum /= n, along /= n;
        #pragma omp simd
        for (Size i = 0; i < n; i++) dx[i] = (dy[i] * gamma[i] - sum - (x[i] - mean) * scale * along) * scale;
    }
    return 0;
}
"""
ROW_FUNCTIONS = {  # {name: (the kinds of its arrays: of T, T that it writes, ? booleans, l integers; how many numbers)}
    "masked": ("t?T", 0),
    "add_masked": ("t?T", 0),
    "sum_by_label": ("tlTT", 0),
    "softmax_cross_entropy": ("tlTT", 1),
    "layer_norm": ("tttTT", 1),
    "layer_norm_backward": ("ttttTTT", 1),
}

# out += a b by a function of NumPy's BLAS. Rows and columns that lie the other way round are told to it (TURNED).
ADD_PRODUCT = """
enum { ROW_MAJOR = 101, PLAIN = 111, TURNED = 112 };

static int lies(const Array* a, Size* step) {
    const Size size = sizeof(T), rows = a->shape[0], columns = a->shape[1], down = a->strides[0], right = a->strides[1];
    if ((size_t)a->data % size) return 0;
    if (right == size && down % size == 0 && down >= columns * size) { *step = down / size; return PLAIN; }
    if (down == size && right % size == 0 && right >= rows * size) { *step = right / size; return TURNED; }
    return 0;
}

template <class Int> static int add_product(Array* out, Array* a, Array* b, void* gemm) {
    if (out->axes != 2 || a->axes != 2 || b->axes != 2) return BAD_SHAPE;
    Size n = a->shape[0], k = a->shape[1], m = b->shape[1], a_step, b_step, step;
    if (b->shape[0] != k || out->shape[0] != n || out->shape[1] != m || !n || !k || !m) return BAD_SHAPE;
    int a_lies = lies(a, &a_step), b_lies = lies(b, &b_step);
    if (!a_lies || !b_lies || lies(out, &step) != PLAIN || overlap(out, a) || overlap(out, b)) return BAD_LAYOUT;
    typedef void Gemm(int, int, int, Int, Int, Int, T, const void*, Int, const void*, Int, T, void*, Int);
    ((Gemm*)gemm)(ROW_MAJOR, a_lies, b_lies, n, m, k, 1, a->data, a_step, b->data, b_step, 1, out->data, step);
    return 0;
}
extern "C" int add_product_64(Array* out, Array* a, Array* b, void* gemm) { return add_product<Size>(out, a, b, gemm); }
extern "C" int add_product_32(Array* out, Array* a, Array* b, void* gemm) { return add_product<int>(out, a, b, gemm); }
"""


def names(parameters):
    """The names in a text such as "T x, T y"."""
    return re.findall(r"T (\w+)", parameters)


def elementwise_source(kernel):
    arrays, numbers, outputs = names(kernel.arrays), names(kernel.numbers), names(kernel.outputs)
    every = arrays + outputs
    load = [f"const T {name} = {name}_[i];" for name in arrays] + [f"T {name} = {name}_[i];" for name in outputs]
    return ELEMENTWISE.format(
        name=kernel.name,
        code=kernel.code,
        pointers=" ".join(f"T* const {name}_ = arrays[{i}];" for i, name in enumerate(every)),
        numbers=" ".join(f"const T {name} = numbers[{i}];" for i, name in enumerate(numbers)),
        load=" ".join(load),
        store=" ".join(f"{name}_[i] = {name};" for name in outputs),
        parameters=", ".join([f"Array* {name}" for name in every] + [f"double {name}" for name in numbers]),
        arrays=", ".join(every),
        given=", ".join(numbers) or "0",
        n_inputs=len(arrays),
        n_arrays=len(every),
    )


def add_rows_source(activation=""):
    if not activation:
        return ADD_ROWS.format(name="", pointers="", body="sums[i] += dys[i];")
    rows = [
        f"T* const {name}s = (T*){name}_->data + row * step[{k}] + start;" for k, name in enumerate(["x", "y", "dx"], 1)
    ]
    dx = f"const T dy = dys[i], x = xs[i], y = ys[i], dx = dy * ({ACTIVATIONS[activation][1]});"
    return ADD_ROWS.format(name=activation, pointers=" ".join(rows), body=f"{dx} dxs[i] = dx; sums[i] += dx;")


def all_kernels():
    return [*KERNELS, *(kernel for name in ACTIVATIONS for kernel in activation_kernels(name))]


def source(dtype):
    """The C++ of all kernels for "float32" or "float64"."""
    numbers = {"head": object.__basicsize__, "bad_layout": BAD_LAYOUT, "bad_shape": BAD_SHAPE}
    head = HEAD.format(real=REAL[dtype], **numbers) + functions(dtype) + OVER + ROWS + ADD_PRODUCT
    return "\n".join([head, *map(elementwise_source, all_kernels()), *map(add_rows_source, ["", *ACTIVATIONS])])
