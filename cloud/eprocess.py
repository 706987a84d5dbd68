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

Test = Callable[[Floats], Any]
"""Log e-process at each of some differences."""

SEARCH_STEPS = 32
"""Halvings of the interval that holds the constrained maximum: to 2e-10, which moves the evidence of a million cases
by less than 0.001."""
GRID = 65
"""Points per pass of the search for a bound; two passes place it within 0.0005."""
STIRLING_FROM = 8.0
HALF_LOG_2PI = 0.9189385332046727
TINY = 1e-300
"""Stands for zero under a logarithm or in a denominator."""

_one_log_gamma = np.frompyfunc(math.lgamma, 1, 1)
FEW = 256
"""So many numbers are quicker one by one than as arrays."""
PRICE_STEPS = 60
"""Halvings of the Lagrange multiplier on a scale from none to all: enough for any counts that fit a table."""


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


def groups_at_most(
    bad_t: ArrayLike,
    n_t: ArrayLike,
    bad_c: ArrayLike,
    n_c: ArrayLike,
    share: ArrayLike,
    difference: ArrayLike,
    prior: Prior,
) -> Any:
    """Return the log e-process against "Σ share · (p − q) ≤ difference", of groups along the last axis.

    Args:
        bad_t, n_t, bad_c, n_c: counts of both arms, of shape (…, groups).
        share: of each group, of the same shape; sums to 1 along the last axis.
        difference: of shape (…).
        prior: of each group's rates.
    """
    x, n, y, m, s = np.broadcast_arrays(*(np.asarray(v, dtype=np.float64) for v in (bad_t, n_t, bad_c, n_c, share)))
    d = np.asarray(difference, dtype=np.float64)
    mixture = (_log_mixture(x, n, prior) + _log_mixture(y, m, prior)).sum(axis=-1)
    return mixture - _log_likelihood_of_groups(x, n, y, m, s, d)


def groups_at_least(
    bad_t: ArrayLike,
    n_t: ArrayLike,
    bad_c: ArrayLike,
    n_c: ArrayLike,
    share: ArrayLike,
    difference: ArrayLike,
    prior: Prior,
) -> Any:
    """Return the log e-process against "Σ share · (p − q) ≥ difference"; see `groups_at_most`."""
    return groups_at_most(bad_c, n_c, bad_t, n_t, share, -np.asarray(difference, dtype=np.float64), prior)


def one_at_most(bad: ArrayLike, n: ArrayLike, rate: ArrayLike, prior: Prior) -> Any:
    """Return the log e-process against "p ≤ rate", of one stream."""
    return _of_one(bad, n, rate, prior, np.minimum)


def one_at_least(bad: ArrayLike, n: ArrayLike, rate: ArrayLike, prior: Prior) -> Any:
    """Return the log e-process against "p ≥ rate", of one stream."""
    return _of_one(bad, n, rate, prior, np.maximum)


def bounds_where(at_most: Test, at_least: Test, low_error: float, high_error: float) -> tuple[float, float]:
    """Return (low, high): at all looks together the difference is above `low` and below `high`, each but for its error.

    Args:
        at_most, at_least: the log e-processes against a difference's being at most, or at least, so much.
        low_error, high_error: of either bound.
    """
    low = _edge(lambda d: at_most(d) >= -math.log(low_error), -1.0, 1.0)
    return low, _edge(lambda d: at_least(d) >= -math.log(high_error), 1.0, -1.0)


def bounds(
    bad_t: float, n_t: float, bad_c: float, n_c: float, prior: Prior, low_error: float, high_error: float
) -> tuple[float, float]:
    """Return (low, high): at all looks together p − q is above `low`, and below `high`, each but for its error."""

    def at_most(d: Floats) -> Any:
        return against_at_most(bad_t, n_t, bad_c, n_c, d, prior)

    def at_least(d: Floats) -> Any:
        return against_at_least(bad_t, n_t, bad_c, n_c, d, prior)

    return bounds_where(at_most, at_least, low_error, high_error)


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
    return _log_gamma(np.asarray(a)) + _log_gamma(np.asarray(b)) - _log_gamma(total)


def _log_gamma(value: ArrayLike) -> Any:
    """Return log Γ of positive numbers, to about 1e-12 of its size (Stirling's series, shifted up where small)."""
    z = np.asarray(value, dtype=np.float64)
    if z.size <= FEW:
        return np.asarray(_one_log_gamma(z), dtype=np.float64)
    product = z * (z + 1) * (z + 2) * (z + 3) * (z + 4) * (z + 5) * (z + 6) * (z + 7)
    small = z < STIRLING_FROM
    shift = np.where(small, np.log(np.where(small, product, 1.0)), 0.0)
    z = np.where(small, z + 8, z)
    inverse = 1 / z
    square = inverse * inverse
    series = inverse * (1 / 12 - square * (1 / 360 - square * (1 / 1260 - square * (1 / 1680 - square / 1188))))
    return (z - 0.5) * np.log(z) - z + HALF_LOG_2PI + series - shift


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


def _log_likelihood_of_groups(x: Floats, n: Floats, y: Floats, m: Floats, s: Floats, d: Floats) -> Floats:
    """Return the largest log likelihood with Σ s (p − q) ≤ d: at a price for the difference, each rate is a root."""
    shape = np.broadcast_shapes(x.shape[:-1], d.shape)
    low, high = np.zeros(shape), np.ones(shape)
    scale = (n + m).sum(axis=-1) + 1.0
    p, q = _rates_at_price(x, n, y, m, np.zeros((*shape, 1)) * s)
    inside = (s * (p - q)).sum(axis=-1) <= d
    for _ in range(PRICE_STEPS):
        middle = 0.5 * (low + high)
        p, q = _rates_at_price(x, n, y, m, (scale * middle / np.maximum(1 - middle, 1e-15))[..., None] * s)
        above = (s * (p - q)).sum(axis=-1) > d
        low, high = np.where(above, middle, low), np.where(above, high, middle)
    price = np.where(inside, 0.0, scale * high / np.maximum(1 - high, 1e-15))
    p, q = _rates_at_price(x, n, y, m, price[..., None] * s)
    return (_log_likelihood(x, n, p) + _log_likelihood(y, m, q)).sum(axis=-1)  # type: ignore[no-any-return]


def _rates_at_price(x: Floats, n: Floats, y: Floats, m: Floats, price: Floats) -> tuple[Floats, Floats]:
    """Return the rates that maximise the log likelihood less price · (p − q); without cases they help the null."""
    p = 2 * x / np.maximum(n + price + np.sqrt(np.maximum((n + price) ** 2 - 4 * price * x, 0.0)), TINY)
    root = np.sqrt((m - price) ** 2 + 4 * price * y)
    q = np.where(
        m > price,
        2 * y / np.maximum(m - price + root, TINY),
        (price - m + root) / np.maximum(2 * price, TINY),
    )
    return np.where(n > 0, p, 0.0), np.where(m > 0, q, 1.0)


def _of_one(
    bad: ArrayLike, n: ArrayLike, rate: ArrayLike, prior: Prior, nearest: Callable[[Floats, Floats], Floats]
) -> Any:
    x, n, r = (np.asarray(value, dtype=np.float64) for value in (bad, n, rate))
    r = np.clip(r, 0.0, 1.0)
    best = np.where(n > 0, nearest(x / np.maximum(n, 1), r), r)
    return _log_mixture(x, n, prior) - _log_likelihood(x, n, best)
