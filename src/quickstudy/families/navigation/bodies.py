"""Bodies of the navigation family that do not respond as they should: their defects are part of the task."""

from dataclasses import astuple, replace

import numpy as np

from quickstudy.families.navigation.scene import Body

WEAK = (0.5, 0.9)
"""The share of its commanded speed that a weak motor reaches; two thirds of the bodies have one weak motor."""
SLIPPERY = (0.06, 0.2)
"""Friction of wheels that slip; half of the bodies have such."""
PAYLOAD = (2.0, 6.0)
"""Kilograms on top of half the bodies."""
OFF_CENTRE = 0.08
"""Metres by which a payload is off the middle at most, along either axis."""

PROTOCOL = (
    f"one motor may reach {WEAK[0]:.0%} to {WEAK[1]:.0%} of its speed, the wheels' friction be {SLIPPERY[0]} to "
    f"{SLIPPERY[1]}, and a load of {PAYLOAD[0]:.0f} to {PAYLOAD[1]:.0f} kg lie off the middle"
)
_SCALE = np.array([0.5, 0.5, 1.0, PAYLOAD[1], OFF_CENTRE, OFF_CENTRE])


def draw(rng: np.random.Generator) -> Body:
    """A body; each defect is drawn independently, so that one body in twelve is healthy."""
    body = Body()
    if rng.uniform() < 2 / 3:
        body = replace(body, **{str(rng.choice(["left", "right"])): _number(rng, *WEAK)})
    if rng.uniform() < 1 / 2:
        body = replace(body, grip=_number(rng, *SLIPPERY))
    if rng.uniform() < 1 / 2:
        x, y = (_number(rng, -OFF_CENTRE, OFF_CENTRE) for _ in range(2))
        body = replace(body, payload=_number(rng, *PAYLOAD), payload_x=x, payload_y=y)
    return body


def difference(body: Body) -> np.ndarray:
    """How a body differs from a healthy one, [field], float32, in about unit range."""
    return ((np.array(astuple(body)) - np.array(astuple(Body()))) / _SCALE).astype(np.float32)


def caption(body: Body) -> str:
    """The defects of a body, for people."""
    healthy = Body()
    defects = [f"{side} motor {part:.0%}" for side, part in (("left", body.left), ("right", body.right)) if part < 1.0]
    defects += [f"grip {body.grip:.2f}"] if body.grip < healthy.grip else []
    defects += [f"{body.payload:.1f} kg"] if body.payload > healthy.payload else []
    return ", ".join(defects) or "healthy"


def _number(rng: np.random.Generator, low: float, high: float) -> float:
    return round(float(rng.uniform(low, high)), 3)
