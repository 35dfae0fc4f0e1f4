"""What the page shows of a session, as text, SVG and pictures for a browser."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from html import escape
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from hyperrl.contexts import ContextSpace, Feature
from hyperrl.explorer.session import Lane, Session
from hyperrl.explorer.weights import Layer
from hyperrl.physics.canvas import SIZE, Canvas

COLORS: Final = ("#1f77b4", "#d9730d", "#2ca02c", "#9467bd", "#8c564b", "#17becf")
"""Of the agents, in their order, again from the first where they are more."""
CURVE_WIDTH, CURVE_HEIGHT, CURVE_LEFT, CURVE_POINTS = 310, 120, 44, 150
LOW, MIDDLE, HIGH = (35, 90, 165), (255, 255, 255), (190, 45, 45)  # of the heat maps


def color(i: int) -> str:
    """Return the colour of agent i."""
    return COLORS[i % len(COLORS)]


def number(value: float) -> str:
    """Write a number with three digits, or all that are before the point.

    >>> number(-1051.3), number(0.00071), number(12.34)
    ('-1051', '0.00071', '12.3')
    """
    return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def percent(feature: Feature, value: float) -> float:
    """Return where a value lies between the ends of a feature's bounds."""
    low, high = feature.bounds[0][0], feature.bounds[-1][1]
    return 100 * (value - low) / (high - low)


def track(feature: Feature) -> str:
    """Return the ground of a slider: where contexts were drawn in training, where there are none, and the default."""

    def piece(kind: str, low: float, high: float) -> str:
        left, right = percent(feature, low), percent(feature, high)
        return f'<div class="{kind}" style="left:{left:.2f}%;width:{right - left:.2f}%"></div>'

    gaps = [(a[1], b[0]) for a, b in zip(feature.bounds, feature.bounds[1:], strict=False)]
    return (
        "".join(piece("train", low, high) for low, high in feature.train)
        + "".join(piece("gap", low, high) for low, high in gaps)
        + piece("default", feature.default, feature.default)
    )


def drawing(lane: Lane) -> dict[str, str]:
    """Return a lane's picture: shapes as ``svg``, pixels as ``image``, or the ``error`` why there is none."""
    try:
        drawn = lane.draw()
    except ValueError as error:
        return {"error": str(error)}
    if isinstance(drawn, Canvas):
        return {"svg": drawn.svg()}
    return {"image": _url(drawn, "JPEG", quality=80)}


def heat_map(layer: Layer) -> str:
    """Return a layer's differences as a picture: blue below, white alike, red above; the longer side lies flat."""
    relative = layer.difference / (layer.scale or 1.0)
    relative = relative.T if relative.shape[0] > relative.shape[1] else relative
    amount = np.abs(relative).clip(0, 1)[..., None]
    ends = np.where(relative[..., None] < 0, np.array(LOW), np.array(HIGH))
    return _url((np.array(MIDDLE) * (1 - amount) + ends * amount).round().astype(np.uint8), "PNG", compress_level=1)


def heat_maps(layers: Sequence[Layer]) -> str:
    """Return the heat maps of an agent, each under what it shows."""
    return "".join(
        f'<div class="layer"><div class="caption"><span>{layer.name}: {layer.shape}</span>'
        f'<span>−{number(layer.scale)} <i class="scale"></i> +{number(layer.scale)}</span></div>'
        f'<img style="height:{_height(layer)}px" src="{heat_map(layer)}"></div>'
        for layer in layers
    )


def curves(session: Session) -> str:
    """Return the returns so far of all agents over the steps, as an SVG."""
    steps = session.family.max_episode_steps or max(2, *(lane.steps for lane in session.lanes))
    everything = np.concatenate([lane.returns for lane in session.lanes])
    low, high = float(everything.min()), float(everything.max())
    high = high if high > low else low + 1
    width, height = CURVE_WIDTH - CURVE_LEFT - 6, CURVE_HEIGHT - 24

    def place(step: float, value: float) -> str:
        return f"{CURVE_LEFT + width * step / steps:.1f},{6 + height * (high - value) / (high - low):.1f}"

    lines = ""
    for i, lane in enumerate(session.lanes):
        at = np.unique(np.linspace(0, lane.steps, CURVE_POINTS).round().astype(int))
        points = " ".join(place(step, lane.returns[step]) for step in at)
        lines += (
            f'<polyline points="{points}" fill="none" stroke="{color(i)}" stroke-width="{max(1.5, 4 - 1.25 * i)}"/>'
        )
    bottom = 6 + height
    return (
        f'<svg viewBox="0 0 {CURVE_WIDTH} {CURVE_HEIGHT}" width="100%">'
        f'<path d="M{CURVE_LEFT},6 V{bottom} H{CURVE_LEFT + width}" fill="none" stroke="#999"/>{lines}'
        f'<text x="{CURVE_LEFT - 4}" y="14" text-anchor="end">{number(high)}</text>'
        f'<text x="{CURVE_LEFT - 4}" y="{bottom}" text-anchor="end">{number(low)}</text>'
        f'<text x="{CURVE_LEFT}" y="{bottom + 15}">0</text>'
        f'<text x="{CURVE_LEFT + width}" y="{bottom + 15}" text-anchor="end">{steps} steps</text></svg>'
    )


def beliefs(lane: Lane, space: ContextSpace) -> list[dict[str, Any]] | None:
    """Return what an agent believes of each feature: where its band begins and ends, its middle, in percent."""
    belief = lane.belief()
    if belief is None:
        return None
    parts = zip(space.features, belief.low.tolist(), belief.high.tolist(), belief.context.tolist(), strict=True)
    return [
        {
            "left": round(percent(feature, low), 2),
            "right": round(percent(feature, high), 2),
            "middle": round(percent(feature, middle), 2),
            "text": f"{number(middle)} [{number(low)}, {number(high)}]",
        }
        for feature, low, high, middle in parts
    ]


def status(lane: Lane) -> str:
    """Say how far an episode is."""
    if lane.fault is not None:
        return escape(lane.fault)
    return f"over after {lane.steps} steps" if lane.is_over else f"step {lane.steps}"


def view_box() -> str:
    """Return the view box of drawings as shapes."""
    return f"0 0 {SIZE} {SIZE}"


def _height(layer: Layer) -> int:
    """Return how high a heat map is shown, in pixels."""
    return min(120, max(12, 5 * min(layer.difference.shape)))


def _url(pixels: NDArray[np.uint8], kind: str, **options: Any) -> str:
    """Return an array ``(height, width, 3)`` as the address of a picture that is in the address."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind, **options)
    return f"data:image/{kind.lower()};base64,{base64.b64encode(buffer.getvalue()).decode()}"
