"""One idea under five names: what a network of diffusion or flow matching predicts.

    x_t = a x_0 + b ε       with the signal a and the noise b at time t, and ε ~ N(0, I)

A network sees x_t only. Whatever it is trained to predict is, at its best, a mean given x_t. All five means below are the
same knowledge, since x̂_0 and ε̂ are tied by x_t = a x̂_0 + b ε̂. So each follows from any other:

    x0         x̂_0               what the picture is
    eps        ε̂                 what the noise is
    v          a ε̂ - b x̂_0       Salimans & Ho 2022, appendix D; a² + b² = 1
    score      -ε̂ / b            ∇ log p(x_t): towards more probable x_t
    velocity   a′ x̂_0 + b′ ε̂     dx_t/dt: where x_t goes as t grows, with the derivatives a′, b′ of a and b

Each is p x̂_0 + q ε̂ with its own numbers p and q: see `combined`. Two equations with two unknowns lead back: see `pair`.

Denoising score matching (Vincent 2011) is what ε-prediction does. The network that minimises E‖ε - f(x_t)‖² is E[ε | x_t],
and E[ε | x_t] = -b ∇ log p(x_t): the score of the noisy data, times -b, although p(x_t) itself is never computed.
"""

KINDS = ("x0", "eps", "v", "score", "velocity")


def combined(kind, x_0, eps, a, b, da=0.0, db=0.0):
    """The prediction of this kind that follows from x̂_0 and ε̂. a, b: signal and noise; da, db: their derivatives in t."""
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
    """(x̂_0, ε̂) from a prediction f of this kind: the solution of a x̂_0 + b ε̂ = x_t and p x̂_0 + q ε̂ = f.

    It divides by a q - b p. For ε this is a, which is almost 0 at pure noise, so an error of ε̂ becomes a large one of x̂_0.
    For x̂_0 it is -b, which is almost 0 at the data. For v it is a² + b² = 1 at all times.
    """
    p, q = combined(kind, 1.0, 0.0, a, b, da, db), combined(kind, 0.0, 1.0, a, b, da, db)
    determinant = a * q - b * p
    return (q * x_t - b * f) * (1 / determinant), (a * f - p * x_t) * (1 / determinant)


def converted(kind, f, into, x_t, a, b, da=0.0, db=0.0):
    """The prediction of kind `into` that says the same as f of this kind."""
    return combined(into, *pair(kind, f, x_t, a, b, da, db), a, b, da, db)
