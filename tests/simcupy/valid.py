"""Small programs that are right on a GPU: none may be refused, and each must give what it gives with NumPy.

Each takes an array module xp, x (4, 3) and y (3,) of its float32 numbers and i (4,) of its integers, from 0 to 2, one twice.
What changes its arguments returns them.
"""

import numpy as np

VALID = {}  # {name: program}


def valid(program):
    """Marks a program that must run, and give what it gives on NumPy."""
    VALID[program.__name__] = program
    return program


@valid
def slices(xp, x, y, i):
    return x[1:3, ::2], x[..., -1], x[:, None, 1], x[-1], x[::-1], x[2, 1], x[()]


@valid
def broadcasting(xp, x, y, i):
    return x + y, x * y[None, :], x[:, :1] - y, 2 - x, 1 / (x + 3), x**2, -x, abs(x), 7 // (x + 3), x % 0.5


@valid
def scalars(xp, x, y, i):
    return x * 2, 0.5 * x, x * np.float32(0.1), xp.maximum(x, 0), xp.minimum(0.5, x), i * 3, np.float64(2) * x


@valid
def reductions(xp, x, y, i):
    return x.sum(), x.sum(axis=0), x.mean(1, keepdims=True), x.max(axis=(0, 1)), xp.mean(x), x.std(axis=0), i.sum()


@valid
def order(xp, x, y, i):
    return x.argmax(axis=1), x.argmin(), xp.sort(x, axis=0), xp.argsort(y), x.cumsum(axis=1), xp.cumprod(y)


@valid
def any_and_all(xp, x, y, i):
    return (x > 0).any(), (x > -9).all(axis=0), xp.isfinite(x).all(), xp.count_nonzero(x > 0), xp.array_equal(x, x)


@valid
def products(xp, x, y, i):
    return x @ x.T, x.T @ x, x @ y, xp.dot(y, y), xp.matmul(x, x.T), xp.outer(y, y), xp.einsum("ij,kj->ik", x, x)


@valid
def products_of_slices(xp, x, y, i):
    return x[:, :2] @ x[:2, :2], x[::2].T @ x[::2], xp.stack([x, x]) @ x.T, xp.tensordot(x, x, axes=([0], [0]))


@valid
def product_into_out(xp, x, y, i):
    out = xp.empty((4, 4), xp.float32)
    xp.matmul(x, x.T, out=out)
    return out


@valid
def ufunc_into_out(xp, x, y, i):
    out = xp.empty_like(x)
    result = xp.multiply(x, x, out=out)
    xp.sqrt(result, out)
    return out, result


@valid
def views_share_memory(xp, x, y, i):
    flat = x.reshape(-1)
    flat[:3] = 5
    x.T[0, 1] = 6
    x[1:, 1:] *= 2
    x.ravel()[-1] = 7
    x.swapaxes(0, 1)[2] -= 1
    return x, flat


@valid
def copies_do_not(xp, x, y, i):
    copies = [x.copy(), x.flatten(), x + 0, x.astype(x.dtype), xp.array(x), x[xp.arange(4)], x.T.reshape(-1)]
    x.fill(9)
    return tuple(copies)


@valid
def no_copy(xp, x, y, i):
    same = [x.astype(x.dtype, copy=False), xp.asarray(x), xp.ascontiguousarray(x)]
    x[...] = 1
    return tuple(same)


@valid
def augmented_assignment(xp, x, y, i):
    x += y
    x[:2] += 1
    x[2] *= x[3]
    x /= 2
    x -= x.mean(axis=0)
    return x


@valid
def assignment(xp, x, y, i):
    x[0] = y
    x[1, 1] = 3
    x[2:, :] = x[:2, :]
    x[:, 2] = 0.5
    return x


@valid
def overlapping_assignment(xp, x, y, i):
    x[1:] = x[:-1]
    return x


@valid
def indexed_assignment(xp, x, y, i):
    x[xp.arange(2)] = x[2:]
    x[i] = 0.5
    x[xp.arange(4), i] += 1
    return x


@valid
def gathers(xp, x, y, i):
    return x[i], x[:, i], x[xp.arange(4), i], x.take(i, axis=0), y[i[0]], xp.take_along_axis(x, i[:, None], axis=1)


@valid
def one_hot(xp, x, y, i):
    rows = (i[:, None] == xp.arange(3)).astype(xp.float32)
    return rows, rows @ xp.eye(3, dtype=xp.float32), (x * rows).sum(axis=1)


@valid
def joins(xp, x, y, i):
    stacked = xp.stack([y, y]), xp.stack([x.sum(), x.max()])
    return *stacked, xp.concatenate([x, x], axis=1), xp.hstack([x, x]), xp.vstack([x, y])


@valid
def list_of_reductions(xp, x, y, i):
    return xp.array([x.sum(), x.max()]), sum([x.sum(), x.max()])


@valid
def parts(xp, x, y, i):
    first, second = xp.split(x, 2)
    left, middle, right = (x[:, k] for k in range(3))
    return first, second, left + middle + right, *list(x)


@valid
def choices(xp, x, y, i):
    return xp.where(x > 0, x, 0), xp.where(x > 0, x, -x), xp.where(i == 1, 1.0, 0.0), xp.clip(x, 0, 1), x.clip(0, 1)


@valid
def booleans(xp, x, y, i):
    a, b = x > 0, x < 1
    return a & b, a | b, ~a, a ^ b, xp.logical_and(a, b), a.astype(x.dtype) - b.astype(x.dtype), a * x, x != 0, i == 1


@valid
def casts(xp, x, y, i):
    return x.astype(xp.float64), i.astype(xp.float32), x.astype("int32"), (x > 0).astype(x.dtype), x.astype(np.float16)


@valid
def filled(xp, x, y, i):
    made = (
        xp.zeros((2, 3)),
        xp.ones(3, xp.float32),
        xp.full((2,), 7),
        xp.eye(3),
        xp.arange(1, 7, 2),
        xp.linspace(0, 1, 5),
    )
    return *made, xp.zeros_like(x), xp.full_like(x, 2), xp.ones_like(x, dtype=int), xp.tril(x), xp.diag(y)


@valid
def functions(xp, x, y, i):
    p = x * x + 0.5
    of_p = xp.log(p), xp.sqrt(p), xp.log1p(p), xp.power(p, 1.5)
    return *of_p, xp.exp(x), xp.tanh(x), xp.expm1(x), xp.sign(x), xp.hypot(x, y)


@valid
def shapes(xp, x, y, i):
    moved = (
        xp.expand_dims(x, 1),
        x[:, None].squeeze(1),
        xp.moveaxis(x, 0, 1),
        xp.broadcast_to(y, (2, 3)),
        xp.transpose(x),
    )
    return (
        *moved,
        x.transpose(1, 0),
        x.reshape(2, -1),
        xp.reshape(x, (3, 4)),
        xp.tile(y, 2),
        xp.roll(x, 1, axis=0),
        x.mT,
    )


@valid
def infinities(xp, x, y, i):
    return x / 0, xp.log(x * 0), xp.nan_to_num(x / 0), xp.exp(x * 1e9)


@valid
def complex_numbers(xp, x, y, i):
    z = x.astype(xp.complex64) + 1j
    z.real[0] = 4
    return z, z.real, z.imag, z.conj(), abs(z), x.real


@valid
def cholesky(xp, x, y, i):
    cov = x.T @ x + 3 * xp.eye(3, dtype=xp.float32)
    L = xp.linalg.cholesky(cov)
    return L, xp.linalg.solve(L, x.T), xp.linalg.inv(cov), xp.linalg.norm(x), xp.linalg.det(cov), xp.diagonal(L)


@valid
def qr(xp, x, y, i):
    q, r = xp.linalg.qr(x)
    return q @ r, abs(xp.diagonal(r))


@valid
def eigenvalues(xp, x, y, i):
    values, vectors = xp.linalg.eigh(x.T @ x)
    u, s, vh = xp.linalg.svd(x, full_matrices=False)
    return values, abs(vectors), s, (u * s) @ vh


@valid
def empty_arrays(xp, x, y, i):
    return x[:0], x[4:].sum(axis=0), xp.zeros((0, 3)), xp.concatenate([x[:0], x])


@valid
def facts(xp, x, y, i):
    assert (len(x), x.shape, x.ndim, x.size, x.nbytes, x.dtype) == (4, (4, 3), 2, 12, 48, np.float32)
    assert x.flags.c_contiguous and not x[:, 1:].flags.c_contiguous
    assert xp.finfo(x.dtype).eps == np.finfo(np.float32).eps
    return x
