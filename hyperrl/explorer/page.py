"""The page itself: NiceGUI's elements around a session, and the server that shows it."""

from __future__ import annotations

import json
import math
import socket
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from html import escape
from importlib.resources import files
from typing import Any, Final, final

import numpy as np
from nicegui import app, ui

from hyperrl.contexts import SPLITS, Feature, show_range
from hyperrl.explorer import view
from hyperrl.explorer.session import Lane, Session
from hyperrl.explorer.weights import WeightMap
from hyperrl.inference import InferringAgent

HOST: Final = "127.0.0.1"
RATE: Final = 36.0
"""Frames per second, somewhat more than are asked for: each takes its time."""
LONGEST: Final = 0.2
"""Seconds that are made up for after a pause of the server."""
SPEEDS: Final = (1, 5, 15, 30, 60, 120)
"""Steps per second."""
SETTLE: Final = 0.1
"""Seconds after which the last value of a slider that was released has surely come."""
LINGER: Final = 1.0
"""Seconds for which the end of an episode stands still."""
UNSEEN: Final = 15
"""Frames that may be under way to the browser; more are left out."""
SELDOM: Final = 5
"""Curves and beliefs are shown each so many frames."""


@final
class Page:
    """One browser tab: a session of its own, its controls, and the clock that runs it.

    :param session: what it shows.
    """

    def __init__(self, session: Session) -> None:
        self.session = session
        self.maps = [WeightMap.of(lane.model, session.space) for lane in session.lanes]
        self.is_playing = True
        self.speed = 30.0
        self.before = time.monotonic()
        self.due = 0.0  # steps to take
        self.lingered = 0.0
        self.sent = self.seen = 0  # frames
        self.has_new_context = True
        self.given: list[Any] = [None] * len(session.lanes)  # of whose weights the maps are
        self.controls: dict[str, Any] = {}  # slider or switch of each feature
        self.values: dict[str, ui.label] = {}
        self._build()
        self.client = ui.context.client
        self.client.on_delete(session.close)
        ui.on("explorer_shown", self._on_shown)
        ui.timer(1 / RATE, self.tick)

    def tick(self) -> None:
        """Take the steps that are due, and show the session."""
        if not self.client.has_socket_connection:
            return
        now = time.monotonic()
        passed, self.before = min(now - self.before, LONGEST), now
        if self.is_playing and not self.session.is_over:
            self.due += self.speed * passed
            while self.due >= 1:
                self.session.step()
                self.due -= 1
        elif self.is_playing:
            self.lingered += passed
            if self.lingered > LINGER:
                self._start_elsewhere()
        if self.sent - self.seen <= UNSEEN:
            self.show()

    def show(self) -> None:
        """Send a frame to the browser."""
        message = self.frame(is_whole=self.sent % SELDOM == 0)
        self.sent += 1
        self.client.run_javascript(f"explorer.show({json.dumps(message)})")

    def frame(self, is_whole: bool) -> dict[str, Any]:
        """Return what the browser is to show now.

        :param is_whole: with curves and beliefs.
        """
        session = self.session
        lanes = [self._frame_of(lane, i, is_whole) for i, lane in enumerate(session.lanes)]
        self.has_new_context = False
        message: dict[str, Any] = {"lanes": lanes, "number": self.sent, "start": f"start {session.start}"}
        return message | ({"curves": view.curves(session)} if is_whole else {})

    def _frame_of(self, lane: Lane, i: int, is_whole: bool) -> dict[str, Any]:
        shown: dict[str, Any] = {
            **view.drawing(lane),
            "status": view.status(lane),
            "reward": view.number(lane.reward),
            "return": f"{lane.returns[-1]:.1f}",
            "over": lane.is_over,
        }
        weights = self.maps[i]
        if isinstance(weights, WeightMap) and (is_whole or self.has_new_context):
            given = weights.read(lane)
            if not np.array_equal(given, self.given[i]):
                self.given[i] = given
                shown["weights"] = view.heat_maps(weights.layers(given))
        if is_whole:
            shown["beliefs"] = view.beliefs(lane, self.session.space)
        return shown

    def _on_shown(self, event: Any) -> None:
        self.seen = max(self.seen, int(event.args))

    def _build(self) -> None:
        session = self.session
        ui.add_css(files("hyperrl.explorer").joinpath("page.css").read_text(encoding="utf-8"))
        script = files("hyperrl.explorer").joinpath("page.js").read_text(encoding="utf-8")
        ui.add_head_html(f"<script>{script}</script>")
        with ui.row().classes("bar"):
            _html(f"<h1>{escape(session.family.name)}</h1>")
            self._build_controls()
            _html('<span id="rate"></span>').classes("rate")
        with ui.element("div").classes("main"):
            with ui.element("div").classes("left"):
                with ui.element("div").classes("panel context"):
                    self._build_context()
                with ui.element("div").classes("panel"):
                    _html('<h2>Return so far</h2><div id="curves" class="curves"></div>')
            with ui.element("div").classes("lanes"):
                for i, lane in enumerate(session.lanes):
                    _html(_card(lane, i, self.maps[i]))

    def _build_controls(self) -> None:
        session = self.session
        self.play = _button("pause", "pause", "Pause or play", self._toggle).classes("play")
        _button("skip_next", "step", "Pause, and take one step", self._step_once)
        _button("replay", "restart", "A new episode from the same start", self._restart)
        _button("shuffle", "new start", "A new episode from another start", self._start_elsewhere)
        push = _button("pan_tool", "push", "Kick the state of every environment", session.push).classes("push")
        if not session.lanes[0].can_be_pushed:
            push.disable()
            push.tooltip("This environment cannot be pushed")
        ui.select({speed: f"{speed} steps/s" for speed in SPEEDS}, value=30, on_change=self._set_speed).props(
            "dense outlined options-dense"
        ).classes("speed").tooltip("Speed")
        if any(isinstance(lane.model, InferringAgent) for lane in session.lanes):
            ui.switch("hide the context", on_change=lambda event: session.hide(bool(event.value))).tooltip(
                "Agents with an estimator act on what they infer"
            )

    def _build_context(self) -> None:
        session = self.session
        _html(f"<h2>Context</h2>{_key(session.lanes)}")
        for i, feature in enumerate(session.space.features):
            with ui.element("div").classes(f"feature feature-{i}"):
                self._build_feature(feature, i)
        with ui.row().classes("bar"):
            ui.button("default", on_click=lambda: self._set_context(session.space.default)).props(
                "dense outline no-caps padding='2px 10px'"
            ).classes("to-default")
            splits = [split for split in SPLITS if _has(session, split)]
            chosen = ui.select(splits, value=splits[0]).props("dense outlined options-dense")
            ui.button("surprise me", on_click=lambda: self._surprise(str(chosen.value))).props(
                "dense no-caps padding='2px 10px'"
            ).classes("surprise").tooltip("A context drawn from this split")

    def _build_feature(self, feature: Feature, i: int) -> None:
        value = feature.default
        with ui.element("div").classes("head"):
            ui.label(feature.name)
            self.values[feature.name] = ui.label().classes("value")

        def change(event: Any) -> None:
            if event.value is not None:
                self._set_feature(feature, float(event.value))

        def settle() -> None:  # a slider that is released in a gap goes to where the value is
            control.set_value(float(self.session.context[i]))

        if all(low == high for low, high in feature.bounds):
            options = {low: f"{low:g}" for low, _ in feature.bounds}
            control: Any = ui.toggle(options, value=value, on_change=change).props("no-caps padding='2px 16px'")
        else:
            low, high = feature.bounds[0][0], feature.bounds[-1][1]
            with ui.element("div").classes("track"):
                _html(view.track(feature)).classes("ground")
                control = ui.slider(min=low, max=high, step=_step(low, high), value=value, on_change=change)
                control.on("change", lambda: ui.timer(SETTLE, settle, once=True), [])
            ends = f"<span>{low:g}</span><span>trained in {show_range(feature.train)}</span><span>{high:g}</span>"
            _html(ends).classes("ends")
            for k, lane in enumerate(self.session.lanes):
                if isinstance(lane.model, InferringAgent):
                    color = f'style="background:{view.color(k)}"'
                    _html(
                        f'<div class="belief" id="belief-{i}-{k}"><div class="band" {color}></div>'
                        f'<div class="mark" {color}></div></div>'
                    )
        self.controls[feature.name] = control
        self._show_value(feature, value)

    def _show_value(self, feature: Feature, value: float) -> None:
        unit = "" if feature.unit == "1" else f" {feature.unit}"
        self.values[feature.name].set_text(f"{value:.4g}{unit}")

    def _set_feature(self, feature: Feature, value: float) -> None:
        """Change one feature, in a gap of the bounds to its nearer end."""
        i = self.session.space.index(feature.name)
        if value == self.session.context[i]:
            return
        became = self.session.set_feature(feature.name, value)
        self.has_new_context = True
        self._show_value(feature, became)

    def _set_context(self, context: Any) -> None:
        self.session.set_context(context)
        self._show_context()

    def _surprise(self, split: str) -> None:
        self.session.surprise(split)
        self._show_context()

    def _show_context(self) -> None:
        self.has_new_context = True
        for feature, value in zip(self.session.space.features, self.session.context.tolist(), strict=True):
            self._show_value(feature, value)
            self.controls[feature.name].set_value(value)

    def _toggle(self) -> None:
        self.is_playing = not self.is_playing
        self.play.set_text("pause" if self.is_playing else "play")
        self.play.set_icon("pause" if self.is_playing else "play_arrow")

    def _step_once(self) -> None:
        if self.is_playing:
            self._toggle()
        self.session.step()

    def _restart(self) -> None:
        self.lingered = self.due = 0.0
        self.session.restart()

    def _start_elsewhere(self) -> None:
        self.lingered = self.due = 0.0
        self.session.start_elsewhere()

    def _set_speed(self, event: Any) -> None:
        self.speed = float(event.value)


def serve(make: Callable[[], Session], port: int | None, show: bool, started: Callable[[str], None]) -> None:
    """Show sessions in browsers on this machine, a new session for each tab, until interrupted.

    :param make: makes a session.
    :param port: where it is served; ``None`` for a free one.
    :param show: open a browser.
    :param started: called with the page's address once it is there.
    :raises ValueError: where the port is not free.
    """
    port = free_port(port)
    app.on_startup(lambda: started(f"http://{HOST}:{port}"))
    ui.run(
        lambda: Page(make()),
        host=HOST,
        port=port,
        title="hyperrl explore",
        show=show,
        reload=False,
        tailwind=False,
        show_welcome_message=False,
        message_history_length=100,
    )


def free_port(port: int | None = None) -> int:
    """Return a port that is free on this machine, or the given one if it is.

    :raises ValueError: where it is not.
    """
    with closing(socket.socket()) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port or 0))
        except (OSError, OverflowError) as error:
            raise ValueError(f"port {port} cannot be used ({error}): leave out --port for a free one") from None
        return int(probe.getsockname()[1])


def _html(content: str) -> ui.html:
    """Put HTML into the page; what users named is escaped already."""
    return ui.html(content, sanitize=False)


def _button(icon: str, text: str, tip: str, do: Callable[[], Any]) -> ui.button:
    return ui.button(text, icon=icon, on_click=lambda: do()).props("dense flat no-caps").tooltip(tip)


def _card(lane: Lane, i: int, weights: WeightMap | str) -> str:
    """Return the frame into which an agent's picture and numbers are put."""
    (kind, *_) = view.drawing(lane)
    picture = {"svg": f'<svg viewBox="{view.view_box()}"></svg>', "image": "<img>", "error": "<p></p>"}[kind]
    shown = (
        f"<h3>Generated weights less those of {weights.begins_with}</h3>"
        "<div class='maps'></div>White where nothing differs. The bias is the last input."
        if isinstance(weights, WeightMap)
        else escape(weights)
    )
    return (
        f'<div class="panel lane" id="lane-{i}">'
        f'<h2><span><i style="background:{view.color(i)}"></i>{escape(lane.name)}</span>'
        f'<small class="status"></small></h2>'
        f'<div class="drawing">{picture}</div>'
        '<div class="numbers"><span>reward <b class="reward"></b></span>'
        '<span>return <b class="return"></b></span></div>'
        f'<div class="weights">{shown}</div></div>'
    )


def _key(lanes: Sequence[Lane]) -> str:
    """Return what the colours around the sliders mean."""
    inferred = [i for i, lane in enumerate(lanes) if isinstance(lane.model, InferringAgent)]
    parts = [
        '<span><i style="background:#cfe8d4"></i>training range</span>',
        '<span><i style="border-left:2px solid #6a9a76;width:2px"></i>default</span>',
        *(f'<span><i style="background:{view.color(i)};height:4px"></i>inferred, 95 %</span>' for i in inferred),
    ]
    return f'<div class="key">{"".join(parts)}</div>'


def _has(session: Session, split: str) -> bool:
    """Say whether a family has contexts of a split: the bounds may leave none outside the training range."""
    try:
        session.space.sample(split, 1)
    except ValueError:
        return False
    return True


def _step(low: float, high: float) -> float:
    """Return a round step of a slider: from a hundred to a thousand of them."""
    return 10.0 ** math.floor(math.log10((high - low) / 100))
