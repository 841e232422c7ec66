"""`jitted.py REPORT GIB`: JAX; a jitted step compared with its first answer."""

import sys
import time

import jax
import jax.numpy as jnp
from report import Report


@jax.jit
def step(x: jax.Array, weights: jax.Array) -> jax.Array:
    """Some matrix products."""
    for _ in range(4):
        x = jnp.tanh(x @ weights)
    return x


def main() -> None:
    """Until killed."""
    report, told = Report(sys.argv[1]), 0.0
    filler = jax.random.normal(jax.random.key(1), (int(float(sys.argv[2]) * 2**28),))
    before = float(jnp.abs(filler).sum())
    weights = jax.random.normal(jax.random.key(0), (4096, 4096)) / 64
    x = jax.random.normal(jax.random.key(2), (512, 4096))
    first = step(x, weights).block_until_ready()
    steps, wrong = 0, 0
    while True:
        wrong += not bool((step(x, weights) == first).all())
        steps += 1
        if steps % 50 == 0:
            wrong += float(jnp.abs(filler).sum()) != before
        if time.monotonic() - told > 0.01:
            told = time.monotonic()
            report.write(steps=steps, wrong=wrong)


if __name__ == "__main__":
    main()
