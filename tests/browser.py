"""A headless Chromium, driven by the DevTools protocol over a pipe: pages as readers see them."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from io import RawIOBase
from pathlib import Path
from typing import Any

__all__ = ["CHROMIUM", "Browser", "browser"]

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--remote-debugging-pipe", "--hide-scrollbars", "about:blank",
)  # fmt: skip

AT_3_AND_4 = """
import os, sys
os.dup2(int(sys.argv[1]), 3)
os.dup2(int(sys.argv[2]), 4)
os.execv(sys.argv[3], sys.argv[3:])
"""
"""Where the browser reads and writes."""


class Browser:
    """One tab of a browser. ``to``, ``back``: the ends of the pipe to it, which carries JSON."""

    def __init__(self, to: int, back: RawIOBase) -> None:
        self._to, self._back = to, back
        self._rest, self._count, self._session = b"", 0, None
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        attached = self.call("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]
        self.call("Page.enable")

    def call(self, method: str, **params: Any) -> Any:
        """The result of a method of the protocol."""
        self._count += 1
        message = {"id": self._count, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._to, json.dumps(message).encode() + b"\0")
        while (answer := self._next()).get("id") != self._count:
            pass
        assert "error" not in answer, answer
        return answer["result"]

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self._rest:
            chunk = self._back.read(2**20)
            assert chunk, "the browser ended"
            self._rest += chunk
        text, _, self._rest = self._rest.partition(b"\0")
        return json.loads(text)

    def show(self, page: Path, width: int = 1280, height: int = 900, *, dark: bool = False) -> None:
        """Open the page of a file in a window of this size."""
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height,
                  deviceScaleFactor=1, mobile=width < 600)  # fmt: skip
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", media="", features=[scheme])
        self.call("Page.navigate", url=page.absolute().as_uri())
        while self._next().get("method") != "Page.loadEventFired":
            pass

    def value(self, script: str) -> Any:
        """What an expression of the page gives, awaited where it is a promise."""
        result = self.call("Runtime.evaluate", expression=script, returnByValue=True,
                           awaitPromise=True)  # fmt: skip
        assert "exceptionDetails" not in result, result["exceptionDetails"]
        return result["result"].get("value")

    def scripts(self, *, enabled: bool) -> None:
        """Whether pages that are opened from now on run scripts."""
        self.call("Emulation.setScriptExecutionDisabled", value=not enabled)

    def picture(self, path: Path, *, full_page: bool = True) -> None:
        """Write what is seen as PNG; ``full_page``: beyond the window."""
        data = self.call("Page.captureScreenshot", captureBeyondViewport=full_page)["data"]
        path.write_bytes(base64.b64decode(data))


@contextmanager
def browser(folder: Path) -> Iterator[Browser]:
    """A browser with a new profile in ``folder``, which ends with the context."""
    (read, to), (back, write) = os.pipe(), os.pipe()
    command = [sys.executable, "-c", AT_3_AND_4, str(read), str(write), str(CHROMIUM), *FLAGS,
               f"--user-data-dir={folder / 'profile'}"]  # fmt: skip
    process = subprocess.Popen(  # a browser on our own files
        command, pass_fds=(read, write), stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL
    )
    os.close(read)
    os.close(write)
    try:
        with os.fdopen(back, "rb", buffering=0) as stream:
            yield Browser(to, stream)
    finally:
        os.close(to)
        process.kill()
        process.wait()
