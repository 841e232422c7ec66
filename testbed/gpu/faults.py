"""
Failures on request, for tests of those who must live with them.

Called by: `service`, before each call and within copies.
"""

import threading
from dataclasses import dataclass, field

from testbed.gpu.errors import Sick


@dataclass
class _Fault:
    times: int
    after_bytes: int


@dataclass
class Faults:
    """What is to fail, by the method's name. Thread safe."""

    _by_method: dict[str, _Fault] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def plan(self, method: str, times: int, after_bytes: int) -> None:
        """The next `times` calls of `method` fail; 0 takes an earlier plan back."""
        with self._lock:
            self._by_method[method] = _Fault(times, after_bytes)

    def strike(self, method: str) -> int | None:
        """Called once per call: raises Sick, or gives the bytes after which a copy is to fail."""
        with self._lock:
            fault = self._by_method.get(method)
            if fault is None or fault.times <= 0:
                return None
            fault.times -= 1
            if fault.after_bytes:
                return fault.after_bytes
        raise Sick(f"{method} fails, as was asked for")
