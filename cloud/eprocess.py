"""Evidence about the difference of two rates that stays valid however often one looks; pure arithmetic.

The two arms are Bernoulli streams with unknown rates p (treatment, t) and q (control, c). For a fixed prior, the
mixture likelihood of all that was seen, over its likelihood at the true (p, q), is a nonnegative martingale that
starts at 1 (Robbins 1970; Howard, Ramdas, McAuliffe, Sekhon 2021, "Time-uniform, nonparametric, nonasymptotic
confidence sequences"). Over the largest likelihood within a null hypothesis it is an e-process (Wasserman, Ramdas,
Balakrishnan 2020, "Universal inference"): by Ville's inequality it ever exceeds 1/error with probability at most
`error`, if the null is true. Joining both arms before the bound asks for less data than one sequence per arm at
half the error, and the set of differences that is not rejected is a confidence sequence for p − q.

Rules:
- All functions take numbers or arrays that broadcast, and return float64; counts may be fractional in projections.
- The prior is fixed before the first look. It sets how soon an answer comes, never how often it is false.
"""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]
Prior = tuple[tuple[float, float, float], ...]
"""(weight, a, b) of each beta distribution of a mixture; the weights sum to 1."""

SEARCH_STEPS = 32
"""Halvings of the interval that holds the constrained maximum: to 2e-10, which moves the evidence of a million cases
by less than 0.001."""
GRID = 65
"""Points per pass of the search for a bound; two passes place it within 0.0005."""
TINY = 1e-300
"""Stands for zero under a logarithm or in a denominator."""

_log_gamma = np.frompyfunc(math.lgamma, 1, 1)


def against_at_most(
    bad_t: ArrayLike, n_t: ArrayLike, bad_c: ArrayLike, n_c: ArrayLike, difference: ArrayLike, prior: Prior
) -> Any:
    """Return the log e-process against "p − q ≤ difference"."""
    return _log_e(bad_t, n_t, bad_c, n_c, difference, prior, at_most=True)


def against_at_least(
    bad_t: ArrayLike, n_t: ArrayLike, bad_c: ArrayLike, n_c: ArrayLike, difference: ArrayLike, prior: Prior
) -> Any:
    """Return the log e-process against "p − q ≥ difference"."""
    return _log_e(bad_t, n_t, bad_c, n_c, difference, prior, at_most=False)


def bounds(
    bad_t: float, n_t: float, bad_c: float, n_c: float, prior: Prior, low_error: float, high_error: float
) -> tuple[float, float]:
    """Return (low, high): at all looks together p − q is above `low`, and below `high`, each but for its error."""

    def below(d: Floats) -> Any:
        return against_at_most(bad_t, n_t, bad_c, n_c, d, prior) >= -math.log(low_error)

    def above(d: Floats) -> Any:
        return against_at_least(bad_t, n_t, bad_c, n_c, d, prior) >= -math.log(high_error)

    return _edge(below, -1.0, 1.0), _edge(above, 1.0, -1.0)


def _edge(rejected: Callable[[Floats], Any], start: float, end: float) -> float:
    """Return the last rejected difference on the way from `start`; `start` itself where none is."""
    for _ in range(2):
        grid = np.linspace(start, end, GRID)
        count = int(np.argmin(np.append(rejected(grid), False)))
        if count == 0:
            return start
        start, end = float(grid[count - 1]), float(grid[min(count, GRID - 1)])
    return start


def _log_e(
    bad_t: ArrayLike,
    n_t: ArrayLike,
    bad_c: ArrayLike,
    n_c: ArrayLike,
    difference: ArrayLike,
    prior: Prior,
    *,
    at_most: bool,
) -> Any:
    x, n, y, m, d = (np.asarray(value, dtype=np.float64) for value in (bad_t, n_t, bad_c, n_c, difference))
    mixture = _log_mixture(x, n, prior) + _log_mixture(y, m, prior)
    p, q = x / np.maximum(n, 1), y / np.maximum(m, 1)
    free = _log_likelihood(x, n, p) + _log_likelihood(y, m, q)
    # An arm without cases fits any rate, so the null then always holds the unconstrained maximum.
    inside = (p - q <= d if at_most else p - q >= d) | (n == 0) | (m == 0)
    return mixture - np.where(inside, free, _log_likelihood_at_difference(x, n, y, m, d))


def _log_mixture(bad: Floats, n: Floats, prior: Prior) -> Floats:
    parts = [math.log(weight) + _log_beta(bad + a, n - bad + b) - _log_beta(a, b) for weight, a, b in prior]
    return np.logaddexp.reduce(np.stack(np.broadcast_arrays(*parts)), axis=0)  # type: ignore[no-any-return]


def _log_beta(a: ArrayLike, b: ArrayLike) -> Any:
    total = np.add(a, b)
    return np.asarray(_log_gamma(a) + _log_gamma(b) - _log_gamma(total), dtype=np.float64)


def _log_likelihood(bad: Floats, n: Floats, rate: Floats) -> Floats:
    good = n - bad
    return np.where(bad > 0, bad * np.log(np.maximum(rate, TINY)), 0.0) + np.where(
        good > 0, good * np.log(np.maximum(1 - rate, TINY)), 0.0
    )


def _log_likelihood_at_difference(x: Floats, n: Floats, y: Floats, m: Floats, d: Floats) -> Floats:
    """Return the largest log likelihood on the line p = q + d: concave in q, so its slope is halved down to zero."""
    low = np.broadcast_to(np.maximum(0.0, -d), np.broadcast_shapes(x.shape, n.shape, y.shape, m.shape, d.shape))
    high = np.broadcast_to(np.minimum(1.0, 1.0 - d), low.shape)
    for _ in range(SEARCH_STEPS):
        q = 0.5 * (low + high)
        p = q + d
        slope = x / np.maximum(p, TINY) - (n - x) / np.maximum(1 - p, TINY)
        slope = slope + y / np.maximum(q, TINY) - (m - y) / np.maximum(1 - q, TINY)
        low, high = np.where(slope > 0, q, low), np.where(slope > 0, high, q)
    q = 0.5 * (low + high)
    return _log_likelihood(x, n, q + d) + _log_likelihood(y, m, q)
