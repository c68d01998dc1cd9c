"""Synthetic series of dirty rates: duty cycles, and what only looks like them."""

import numpy

BEGIN = 1.7e9


def moments(kind: str, random, samples: int | None = None) -> tuple[numpy.ndarray, float]:
    """Return when samples were taken, and the length of their windows."""
    if kind == "minutes":
        samples = 60 if samples is None else samples
        return BEGIN + 60 * (numpy.arange(samples) + random.random(samples)), 2.0
    return BEGIN + random.random() * 1000 + numpy.arange(samples or 90), 1.0


def duty(at, window: float, period: float, on_share: float, shift: float, busy: float,
         quiet: float, random) -> numpy.ndarray:
    """Return the noisy mean rates of windows over a square wave that is busy from ``shift`` on."""
    parts = at[:, None] + window * (numpy.arange(10) + 0.5) / 10
    on = ((parts - BEGIN - shift) % period < on_share * period).mean(axis=1)
    return (quiet + (busy - quiet) * on) * random.lognormal(0, 0.2, len(at))


def aperiodic(kind: str, samples: int, random) -> numpy.ndarray:
    """Return rates without a period."""
    match kind:
        case "white":
            return random.lognormal(5, 0.5, samples)
        case "normal":
            return numpy.maximum(0, random.normal(100, 30, samples))
        case "bursts":
            return 500.0 * (random.random(samples) < 0.1)
        case "walk":
            return numpy.exp(numpy.cumsum(random.normal(0, 0.3, samples)))
        case "telegraph":
            return 20 + 500.0 * (numpy.cumsum(random.random(samples) < 0.06) % 2)
        case "step":
            edge = samples * random.random()
            return numpy.where(numpy.arange(samples) < edge, 20, 500) \
                * random.lognormal(0, 0.2, samples)
        case "trend":
            return numpy.linspace(10, 500, samples) * random.lognormal(0, 0.2, samples)
        case "constant":
            return numpy.full(samples, 120.0)
        case "idle":
            return numpy.zeros(samples)
    raise ValueError(kind)
