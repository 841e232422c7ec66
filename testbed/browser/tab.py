"""One tab: opened, looked at, typed into. Made by `chromium`."""

import base64
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

Ask = Callable[..., dict[str, Any]]
_PATIENCE_S = 60.0
_LOOK_S = 0.05
_KEYS = {
    "Tab": 9,
    "Enter": 13,
    "Space": 32,
    "ArrowLeft": 37,
    "ArrowRight": 39,
    "Home": 36,
    "End": 35,
}


class Tab:
    """`ask(method, **parameters)` speaks to it in the DevTools protocol."""

    def __init__(self, ask: Ask) -> None:
        self._ask = ask
        for domain in ("Page", "Runtime", "Network"):
            ask(f"{domain}.enable")

    def size(self, width: int, height: int = 900, *, scale: float = 1.0) -> None:
        """The window, in CSS pixels; below 600 it is a phone's."""
        self._ask(
            "Emulation.setDeviceMetricsOverride",
            width=width, height=height, deviceScaleFactor=scale, mobile=width < 600,
        )  # fmt: skip

    def prefer(self, **features: str) -> None:
        """What the system prefers: `color_scheme="dark"`, `reduced_motion="reduce"`."""
        wanted = [
            {"name": f"prefers-{name.replace('_', '-')}", "value": value}
            for name, value in features.items()
        ]
        self._ask("Emulation.setEmulatedMedia", features=wanted)

    def open(self, url: str) -> None:
        """Go there, and wait until it is parsed."""
        self._ask("Page.navigate", url=url)
        here = json.dumps(url)
        self.until(f"document.readyState !== 'loading' && location.href.startsWith({here})")

    def evaluate(self, script: str) -> Any:
        """The value of an expression in the page. Raises AssertionError where it throws."""
        said = self._ask(
            "Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True
        )
        assert "exceptionDetails" not in said, said["exceptionDetails"]
        return said["result"].get("value")

    def text(self, selector: str) -> str:
        """What a person reads there."""
        return str(self.evaluate(f"document.querySelector({json.dumps(selector)}).innerText"))

    def until(self, script: str, within: float = _PATIENCE_S) -> None:
        """Until an expression is true; one that throws is not yet. Raises AssertionError."""
        over = time.monotonic() + within
        wrapped = f"(() => {{ try {{ return !!({script}); }} catch {{ return false; }} }})()"
        while not self.evaluate(wrapped):
            assert time.monotonic() < over, f"not so after {within:g} s: {script}"
            time.sleep(_LOOK_S)

    def press(self, key: str) -> None:
        """One key, by its DevTools name."""
        code = _KEYS[key]
        text = {"Enter": "\r", "Space": " "}.get(key, "")
        named = {"key": " " if key == "Space" else key, "code": key, "windowsVirtualKeyCode": code}
        down = "keyDown" if text else "rawKeyDown"
        self._ask("Input.dispatchKeyEvent", type=down, **named, **({"text": text} if text else {}))
        self._ask("Input.dispatchKeyEvent", type="keyUp", **named)

    def screenshot(self, file: Path, *, whole: bool = True) -> None:
        """As PNG, of the whole page or of what the window shows."""
        said = self._ask("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        file.write_bytes(base64.b64decode(said["data"]))
