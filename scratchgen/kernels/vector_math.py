"""The C++ of exp, expm1, tanh, log and log1p, written so that every compiler makes vector instructions of them.

Compilers rarely know the C library's own for vectors, and to compute one number after another takes ten times as long. These
have no branches and no tables, only sums and products of T and choices between two numbers. They are right to 3 units in the
last place, keep nan, and give what NumPy gives for ±∞ and where a result is too large or too small.

    eˣ:      x = n log 2 + r with a whole n and |r| <= ½ log 2, so eˣ = 2ⁿ eʳ. A polynomial gives eʳ - 1.
    tanh x:  (e²ˣ - 1) / (e²ˣ + 1)
    log x:   x = 2ⁿ m with ½√2 < m <= √2 and log m = 2 (s + s³/3 + s⁵/5 + ...) for s = (m - 1) / (m + 1)
"""

import math

# For each type: the whole number of its size, bits of the mantissa, the exponent of 1, log 2 in two parts of which the first
# has so few bits that n times it is exact, beyond which x eˣ is 0 or ∞, and how many terms the two series need.
REALS = {
    "float32": ("unsigned int", 23, 127, 0.693359375, -2.1219444e-4, -104, 89, 7, 5),
    "float64": ("unsigned long long", 52, 1023, 0.6931471803691238, 1.9082149292705877e-10, -746, 710, 13, 11),
}

FUNCTIONS = """
typedef {whole} Whole;
#define INLINE __attribute__((always_inline)) static inline  // a loop with a call in it is not made of vectors
static const T ROUND = T(3ull << ({mantissa} - 1)), INFINITE = __builtin_inf();  // the last bit of ROUND is worth 1

static inline T from_bits(Whole u) {{ T x; __builtin_memcpy(&x, &u, sizeof x); return x; }}
static inline Whole to_bits(T x) {{ Whole u; __builtin_memcpy(&u, &x, sizeof u); return u; }}
static inline T rounded(T x) {{ return (x + ROUND) - ROUND; }}
static inline T power_of_2(T n) {{ return from_bits((to_bits(n + ROUND) + {bias}) << {mantissa}); }}

// e^r - 1 for x = n log 2 + r
INLINE T reduced(T x, T n) {{
    const T r = (x - n * T({high})) - n * T({low});
    return r + r * r * ({exp_series});
}}

INLINE T exp(T x) {{
    x = x < {least} ? T({least}) : x > {most} ? T({most}) : x;
    const T n = rounded(x * T({per_log2})), half = rounded(n / 2);
    return (1 + reduced(x, n)) * power_of_2(half) * power_of_2(n - half);  // 2^n alone may be too large or too small
}}

INLINE T expm1(T x) {{
    x = x < -40 ? T(-40) : x > {most} ? T({most}) : x;
    const T n = rounded(x * T({per_log2})), half = power_of_2(n - 1);
    return 2 * (half * reduced(x, n) + (half - T(0.5)));
}}

INLINE T tanh(T x) {{
    T size = x < 0 ? -x : x;
    size = size > 20 ? T(20) : size;
    const T e = expm1(2 * size), t = e / (e + 2);
    return x < 0 ? -t : t;
}}

INLINE T log(T x) {{
    const bool tiny = x < from_bits((Whole)1 << {mantissa});
    const Whole u = to_bits(tiny ? x * power_of_2(60) : x), one = to_bits(1), whole = to_bits(power_of_2({mantissa}));
    T n = from_bits((u >> {mantissa}) | whole) - (power_of_2({mantissa}) + {bias}) - (tiny ? 60 : 0);
    T m = from_bits((u & (((Whole)1 << {mantissa}) - 1)) | one);
    n = m > T({root}) ? n + 1 : n;
    m = m > T({root}) ? m / 2 : m;
    const T s = (m - 1) / (m + 1), z = s * s;
    T y = n * T({high}) + (2 * s + (2 * s * z * ({log_series}) + n * T({low})));
    y = x < INFINITE ? y : x;  // ∞ and nan
    y = x < 0 ? T(__builtin_nan("")) : y;
    return x == 0 ? -INFINITE : y;
}}

INLINE T log1p(T x) {{
    const T u = 1 + x, y = log(u), lost = (x - (u - 1)) / u;  // what 1 + x has lost; nan for -1 and ∞
    return lost == lost ? y + lost : y;
}}

static inline T sqrt(T x) {{ return sizeof(T) == 4 ? __builtin_sqrtf(x) : __builtin_sqrt(x); }}
"""


def series(variable, coefficients):
    """The text of a polynomial, c₀ + x (c₁ + x (c₂ + ...))."""
    first, *rest = coefficients
    return f"T({first!r}) + {variable} * ({series(variable, rest)})" if rest else f"T({first!r})"


def functions(dtype):
    """The C++ of all functions for "float32" or "float64"."""
    whole, mantissa, bias, high, low, least, most, n_exp, n_log = REALS[dtype]
    return FUNCTIONS.format(
        whole=whole, mantissa=mantissa, bias=bias, high=high, low=low, least=least, most=most, root=math.sqrt(2),
        per_log2=1 / math.log(2), exp_series=series("r", [1 / math.factorial(k) for k in range(2, n_exp + 1)]),
        log_series=series("z", [1 / (2 * k + 1) for k in range(1, n_log)]),
    )  # fmt: skip
