"""CuPy's rules: which names exist, which arguments they take, and what may stand beside a device array."""

import inspect
import pathlib

import numpy as np


def _read_table():
    """{section: its lines} of signatures.txt."""
    sections, lines = {}, []
    for line in pathlib.Path(__file__).with_name("signatures.txt").read_text().splitlines():
        if line.startswith("["):
            lines = sections.setdefault(line.strip("[]"), [])
        elif line and not line.startswith("#"):
            lines.append(line)
    return sections


def _signatures(lines):
    """{name: Signature} of lines such as "sum(a, axis=None)"."""
    known = {"float": float, "int": int, "float64": np.float64, "int64": np.int64}
    return {
        name: inspect.signature(eval(f"lambda {parameters[:-1]}: None", known))
        for name, _, parameters in (line.partition("(") for line in lines)
    }


TABLE = _read_table()
WORDS = {section: " ".join(lines).split() for section, lines in TABLE.items()}
UFUNCS, SAME = WORDS["ufuncs"], WORDS["same as numpy"]
SIGNATURES = {section: _signatures(TABLE[section]) for section in ("functions", "ndarray", "linalg", "Generator")}


# Operators, {name: ufunc}.
ARITHMETIC = {
    "add": "add", "sub": "subtract", "mul": "multiply", "truediv": "true_divide", "floordiv": "floor_divide",
    "mod": "remainder", "pow": "power", "and": "bitwise_and", "or": "bitwise_or", "xor": "bitwise_xor",
    "lshift": "left_shift", "rshift": "right_shift",
}  # fmt: skip
COMPARISONS = {
    "lt": "less", "le": "less_equal", "gt": "greater", "ge": "greater_equal", "eq": "equal", "ne": "not_equal",
}  # fmt: skip
UNARY = {"neg": "negative", "pos": "positive", "abs": "absolute", "invert": "invert"}


def bind(section, name, args, kwargs):
    """(args, kwargs) as CuPy's signature understands them. Raises TypeError for what CuPy does not take."""
    try:
        bound = SIGNATURES[section][name].bind(*args, **kwargs)
    except TypeError as error:
        raise TypeError(f"{name}{SIGNATURES[section][name]}: {error}") from None
    return bound


def needs_values(name, given):
    """Whether the size of a function's result depends on values, so that CuPy must read them."""
    return name in WORDS["data-dependent size"] and not isinstance(given.get("repeats"), int)


def missing(where, name):
    """The AttributeError for a name that is not in the table."""
    return AttributeError(f"{where} has no {name!r}: CuPy has none either, or it is missing in simcupy/signatures.txt")


def refuse_host(name, value):
    """Raise TypeError if a NumPy array is there, alone or in a list."""
    if isinstance(value, np.ndarray):
        raise TypeError(f"{name}: Unsupported type {type(value)} (an array on the host, {value.shape})")
    if isinstance(value, (list, tuple)):
        for item in value:
            refuse_host(name, item)


def supported(dtype):
    """The dtype. Raises ValueError for one that no GPU has: objects, text, dates, long doubles."""
    if dtype.kind not in "biufc" or dtype.itemsize > 8 * (1 + (dtype.kind == "c")):
        raise ValueError(f"Unsupported dtype {dtype}")
    return dtype


def one_piece(a):
    """Whether cuBLAS takes a NumPy array as it lies: it or its transpose is contiguous."""
    return a.flags.c_contiguous or (a.ndim > 1 and a.swapaxes(-1, -2).flags.c_contiguous)
