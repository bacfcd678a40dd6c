"""A headless Chromium, driven over a pipe by its DevTools protocol."""

import base64
import json
import os
import select
import shutil
import subprocess
import time

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")


def find() -> str | None:
    """The program, if there is one."""
    return next(filter(None, map(shutil.which, NAMES)), None)


class Browser:
    """One page of a headless browser.

    Attributes:
        complaints: what the console said in anger, exceptions and requests that failed.
        requests: addresses that were asked for.
    """

    def __init__(self, profile, *, timeout=90):
        self.timeout, self.complaints, self.requests = timeout, [], []
        to_browser, self._out = os.pipe()
        self._in, from_browser = os.pipe()
        command = [
            # Chromium reads from 3 and writes to 4.
            "bash", "-c", f'exec "$@" 3<&{to_browser} 4>&{from_browser}', "bash",
            find(), "--headless=new", "--no-sandbox", "--remote-debugging-pipe",
            "--hide-scrollbars", "--enable-unsafe-swiftshader",
            "--use-angle=swiftshader", "--disable-dev-shm-usage", "--no-first-run",
            f"--user-data-dir={profile}", "about:blank",
        ]  # fmt: skip
        self.process = subprocess.Popen(
            command, pass_fds=(to_browser, from_browser),
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        os.close(to_browser)
        os.close(from_browser)
        self._number, self._buffer, self._session = 0, b"", None
        page = next(
            t for t in self("Target.getTargets")["targetInfos"] if t["type"] == "page"
        )
        self._session = self(
            "Target.attachToTarget", targetId=page["targetId"], flatten=True
        )["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self(f"{domain}.enable")

    def __call__(self, method, **params):
        """Calls a method of the protocol and waits for its answer."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._out, json.dumps(message).encode() + b"\0")
        while True:
            found = self._message()
            if found.get("id") == self._number:
                assert "error" not in found, (method, found["error"])
                return found["result"]

    def _message(self):
        ends = time.monotonic() + self.timeout
        while b"\0" not in self._buffer:
            left = ends - time.monotonic()
            ready, _, _ = select.select([self._in], [], [], max(left, 0))
            assert ready, "the browser does not answer"
            chunk = os.read(self._in, 1 << 20)
            assert chunk, "the browser has ended"
            self._buffer += chunk
        line, _, self._buffer = self._buffer.partition(b"\0")
        found = json.loads(line)
        self._note(found.get("method"), found.get("params", {}))
        return found

    def _note(self, method, params):
        if method == "Runtime.exceptionThrown":
            self.complaints.append(params["exceptionDetails"])
        elif method == "Runtime.consoleAPICalled" and params["type"] == "error":
            self.complaints.append(params["args"])
        elif method == "Log.entryAdded" and params["entry"]["level"] == "error":
            self.complaints.append(params["entry"])
        elif method == "Page.javascriptDialogOpening":
            self.complaints.append(params)
        elif method == "Network.requestWillBeSent":
            self.requests.append(params["request"]["url"])

    def look(self, width, height, *, dark=False, scale=1):
        """Sets the size of the window and the colours that the reader prefers."""
        self("Emulation.setDeviceMetricsOverride", width=width, height=height,
             deviceScaleFactor=scale, mobile=width < 500)  # fmt: skip
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self("Emulation.setEmulatedMedia", features=[scheme])

    def open(self, file):
        """Opens a file and waits for it."""
        self("Page.navigate", url=file.resolve().as_uri())
        self.until("document.readyState === 'complete'")

    def evaluate(self, expression):
        """The value of an expression, of a promise too."""
        found = self("Runtime.evaluate", expression=expression, awaitPromise=True,
                     returnByValue=True)  # fmt: skip
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def until(self, expression):
        """Waits for an expression to be true."""
        ends = time.monotonic() + self.timeout
        while not self.evaluate(expression):
            assert time.monotonic() < ends, expression
            time.sleep(0.1)

    def screenshot(self):
        """What the window shows, as PNG."""
        found = self("Page.captureScreenshot", format="png")
        return base64.b64decode(found["data"])

    def pdf(self):
        """The page as it is printed."""
        found = self("Page.printToPDF", printBackground=False)
        return base64.b64decode(found["data"])

    def close(self):
        """Ends the browser."""
        os.close(self._out)
        os.close(self._in)
        self.process.terminate()
        self.process.wait(30)
