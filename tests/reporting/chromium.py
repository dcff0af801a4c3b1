"""Headless Chromium, driven over its DevTools protocol through a pair of pipes: no driver and no package is needed."""

import base64
import fcntl
import json
import os
import select
import shutil
import subprocess
import sys
import time
from contextlib import suppress

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser")
FLAGS = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-extensions",
    "--host-resolver-rules=MAP * ~NOTFOUND",
)  # fmt: skip
KEYS = {"ArrowDown": 40, "ArrowUp": 38, "Home": 36, "End": 35, "PageDown": 34, "Tab": 9, "Enter": 13}
SECONDS = 90
"""Until the browser is given up."""


class Chromium:
    """One browser with one page.

    Attributes:
        errors: exceptions, console errors and what the browser logged as errors.
        requests: addresses that were asked for, but files and data.
    """

    def __init__(self, profile):
        self.errors, self.requests, self._number, self._pending, self._events = [], [], 0, b"", set()
        # The browser reads from its file 3 and writes to its file 4; ours lie higher, so that neither is overwritten.
        (theirs_in, ours_out), (ours_in, theirs_out) = os.pipe(), os.pipe()
        low = (theirs_in, ours_out, ours_in, theirs_out)
        high = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 10) for fd in low]
        for fd in low:
            os.close(fd)
        theirs_in, self._out, self._in, theirs_out = high
        moves = f"os.dup2({theirs_in}, 3); os.dup2({theirs_out}, 4)"
        start = f"import os, sys; {moves}; os.execv(sys.argv[1], sys.argv[1:])"
        command = [sys.executable, "-c", start, BROWSER, *FLAGS]
        command += [f"--user-data-dir={profile}", "--remote-debugging-pipe", "about:blank"]
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        self._process = subprocess.Popen(command, pass_fds=(theirs_in, theirs_out), **quiet)
        os.close(theirs_in)
        os.close(theirs_out)
        self._session = None
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")
        self.call("Emulation.setScrollbarsHidden", hidden=True)

    def close(self):
        with suppress(OSError, TimeoutError):
            self._session = None
            self.call("Browser.close")
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        os.close(self._in)
        os.close(self._out)

    def call(self, method, **parameters):
        """A command's result."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._out, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._read()
            if answer.get("id") == self._number:
                assert "error" not in answer, f"{method}: {answer['error']}"
                return answer["result"]

    def open(self, url, width=1280, height=900):
        """Load a page in a window of this size."""
        self.resize(width, height)
        self._events.clear()
        self.call("Page.navigate", url=url)
        while "Page.loadEventFired" not in self._events:
            self._read()
        self.settle()

    def resize(self, width, height=900):
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)

    def settle(self):
        """Let the page draw."""
        wait = "new Promise(r => requestAnimationFrame(() => setTimeout(() => requestAnimationFrame(r), 300)))"
        self.run(wait)

    def run(self, script):
        """The value of an expression in the page."""
        result = self.call("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in result, f"{script}: {result['exceptionDetails']}"
        return result["result"].get("value")

    def text(self, selector):
        return self.run(f"document.querySelector({json.dumps(selector)}).innerText")

    def count(self, selector):
        return self.run(f"document.querySelectorAll({json.dumps(selector)}).length")

    def click(self, selector):
        """Click in the middle of an element, where a reader would."""
        box = self.run(
            f"(e => {{ e.scrollIntoView({{block: 'center'}}); const b = e.getBoundingClientRect();"
            f" return [b.x + b.width / 2, b.y + b.height / 2]; }})(document.querySelector({json.dumps(selector)}))"
        )
        for kind in ("mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, x=box[0], y=box[1], button="left", clickCount=1)

    def choose(self, selector, label):
        """Choose the entry of a menu that says ``label``."""
        at = json.dumps(selector)
        chosen = self.run(
            f"(m => {{ const o = [...m.options].find(o => o.text === {json.dumps(label)}); if (!o) return"
            " [...m.options].map(o => o.text); m.value = o.value;"
            f" m.dispatchEvent(new Event('change', {{bubbles: true}})); }})(document.querySelector({at}))"
        )
        assert chosen is None, f"{label!r} is none of {chosen}"

    def write(self, selector, text):
        """Put ``text`` into a field."""
        self.run(f"(e => {{ e.focus(); e.select(); }})(document.querySelector({json.dumps(selector)}))")
        self.call("Input.insertText", text=text)

    def press(self, key):
        for kind in ("rawKeyDown", "keyUp"):
            self.call("Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=KEYS[key])

    def screenshot(self, path, selector=None):
        """The page, or an element of it, as a PNG file."""
        x, y, width, height = self.run(
            f"(e => {{ const b = e.getBoundingClientRect(); return [b.x + scrollX, b.y + scrollY, b.width, b.height];"
            f" }})(document.querySelector({json.dumps(selector or 'html')}))"
        )
        clip = {"x": x, "y": y, "width": width, "height": height, "scale": 1}
        shot = self.call("Page.captureScreenshot", captureBeyondViewport=True, clip=clip)
        path.write_bytes(base64.b64decode(shot["data"]))

    def _read(self):
        until = time.monotonic() + SECONDS
        while b"\0" not in self._pending:
            ready, _, _ = select.select([self._in], [], [], max(0.0, until - time.monotonic()))
            piece = os.read(self._in, 1 << 20) if ready else b""
            if not piece:
                raise TimeoutError("Chromium says nothing")
            self._pending += piece
        line, _, self._pending = self._pending.partition(b"\0")
        message = json.loads(line)
        self._note(message.get("method"), message.get("params", {}))
        return message

    def _note(self, method, said):
        self._events.add(method)
        if method == "Runtime.exceptionThrown":
            self.errors.append(said["exceptionDetails"])
        elif method == "Runtime.consoleAPICalled" and said["type"] in ("error", "assert"):
            self.errors.append(said["args"])
        elif method == "Log.entryAdded" and said["entry"]["level"] == "error":
            self.errors.append(said["entry"])
        elif method == "Network.requestWillBeSent":
            url = said["request"]["url"]
            if not url.startswith(("file:", "data:", "blob:", "about:")):
                self.requests.append(url)
