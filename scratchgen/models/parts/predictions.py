"""One idea under five names: what a network of diffusion or of flow matching predicts.

    x_t = a x_0 + b ε       with the signal a and the noise b at time t, and ε ~ N(0, I)

A network sees only x_t. With a squared error it learns a mean: x̂_0 = E[x_0 | x_t] or ε̂ = E[ε | x_t] or one of the others
below. The two means are tied by x_t = a x̂_0 + b ε̂. So all of these say the same, and each follows from any other:

    x0         x̂_0               what the example is
    eps        ε̂                 what the noise is
    v          a ε̂ - b x̂_0       Salimans & Ho 2022, appendix D, for a² + b² = 1
    score      -ε̂ / b            ∇ log p(x_t), the way to more probable x_t
    velocity   a′ x̂_0 + b′ ε̂     dx_t/dt, how x_t moves with time; a′ and b′ are the derivatives of a and b

Each is p x̂_0 + q ε̂, with its own numbers p and q: see `combined`. Together with x_t = a x̂_0 + b ε̂ these are two equations
with two unknowns: see `pair`.

To predict ε is denoising score matching (Vincent 2011). The minimum of E‖ε - f(x_t)‖² is at f = E[ε | x_t], and this mean is
-b ∇ log p(x_t). So the network learns the score of the noisy data, although nobody can compute p(x_t) itself.
"""

KINDS = ("x0", "eps", "v", "score", "velocity")


def combined(kind, x_0, eps, a, b, da=0.0, db=0.0):
    """The prediction of this kind for x̂_0 and ε̂. a, b: signal and noise, floats or arrays; da, db: their derivatives in t.

    Raises ValueError for an unknown kind.
    """
    match kind:
        case "x0":
            return x_0
        case "eps":
            return eps
        case "v":
            return a * eps - b * x_0
        case "score":
            return eps * (-1 / b)
        case "velocity":
            return da * x_0 + db * eps
    raise ValueError(f"combined: kind {kind!r} is unknown, use one of {', '.join(KINDS)}")


def pair(kind, f, x_t, a, b, da=0.0, db=0.0):
    """(x̂_0, ε̂) for a prediction f of this kind: the solution of a x̂_0 + b ε̂ = x_t and p x̂_0 + q ε̂ = f.

    The solution is divided by a q - b p. For eps this is a, which is nearly 0 at pure noise: there a small error of ε̂ is a
    large one of x̂_0. For x0 it is -b, which is nearly 0 at the data. For v it is a² + b² = 1 at all times.
    """
    p, q = combined(kind, 1.0, 0.0, a, b, da, db), combined(kind, 0.0, 1.0, a, b, da, db)
    determinant = a * q - b * p
    return (q * x_t - b * f) * (1 / determinant), (a * f - p * x_t) * (1 / determinant)


def converted(kind, f, into, x_t, a, b, da=0.0, db=0.0):
    """The prediction of the kind `into` that says the same as the prediction f of this kind."""
    return combined(into, *pair(kind, f, x_t, a, b, da, db), a, b, da, db)
