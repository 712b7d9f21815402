"""A page in a real Chromium without a window, driven over its debugging pipe."""

import base64
import itertools
import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
SECONDS = 60.0
Message = dict[str, Any]


class Page:
    """An open page: what it requested and said is kept.

    Attributes:
        requests: the addresses that it asked for.
        said: what it wrote to the console, and uncaught errors.
    """

    def __init__(self, to: int, answers: int) -> None:
        self.to, self.answers, self.rest = to, answers, b""
        self.numbers = itertools.count(1)
        self.session: str | None = None
        self.requests: list[str] = []
        self.said: list[str] = []

    def call(self, method: str, **parameters: Any) -> Message:
        """Call a method of Chromium's debugging protocol and return its result."""
        number = next(self.numbers)
        message: Message = {"id": number, "method": method, "params": parameters}
        if self.session:
            message["sessionId"] = self.session
        os.write(self.to, json.dumps(message).encode() + b"\0")
        while (answer := self.read()).get("id") != number:
            self.note(answer)
        assert "error" not in answer, answer
        result: Message = answer["result"]
        return result

    def read(self) -> Message:
        """Return the next message."""
        while b"\0" not in self.rest:
            part = os.read(self.answers, 2**20)
            assert part, "Chromium has ended"
            self.rest += part
        first, _, self.rest = self.rest.partition(b"\0")
        message: Message = json.loads(first)
        return message

    def note(self, event: Message) -> None:
        """Keep what an event says."""
        parameters = event.get("params", {})
        if event.get("method") == "Network.requestWillBeSent":
            self.requests.append(parameters["request"]["url"])
        elif event.get("method") in ("Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Log.entryAdded"):
            self.said.append(json.dumps(parameters))

    def do(self, script: str) -> Any:
        """Run JavaScript and return its value."""
        done = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in done, done
        return done["result"].get("value")

    def wait(self, condition: str) -> None:
        """Wait until an expression of JavaScript is true."""
        end = time.monotonic() + SECONDS
        while not self.do(f"Boolean({condition})"):
            assert time.monotonic() < end, condition
            time.sleep(0.05)

    def press(self, key: str, code: int, text: str = "") -> None:
        """Press and release a key."""
        named = {"key": key, "code": key, "windowsVirtualKeyCode": code}
        self.call("Input.dispatchKeyEvent", type="keyDown", text=text, **named)
        self.call("Input.dispatchKeyEvent", type="keyUp", **named)

    def resize(self, width: int, height: int) -> None:
        """Give the page another size, in pixels."""
        self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600
        )

    def screenshot(self, path: Path) -> None:
        """Write a picture of what is visible."""
        path.write_bytes(base64.b64decode(self.call("Page.captureScreenshot")["data"]))


@contextmanager
def opened(address: str, folder: Path) -> Iterator[Page]:
    """Open a page; ``folder`` takes the browser's profile."""
    assert CHROMIUM
    (read_there, to), (answers, write_there) = os.pipe(), os.pipe()
    command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--remote-debugging-pipe"]
    quiet = ["--no-first-run", "--disable-background-networking", f"--user-data-dir={folder}", "about:blank"]
    # Chromium reads file descriptor 3 and writes file descriptor 4.
    shell = f'exec 3<&{read_there} 4>&{write_there}; exec "$@"'
    process = subprocess.Popen(
        ["bash", "-c", shell, "chromium", *command, *quiet],
        pass_fds=(read_there, write_there),
        stderr=subprocess.DEVNULL,
    )
    os.close(read_there)
    os.close(write_there)
    page = Page(to, answers)
    try:
        target = page.call("Target.createTarget", url="about:blank")["targetId"]
        page.session = page.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for part in ("Network", "Runtime", "Log", "Page"):
            page.call(f"{part}.enable")
        page.call("Page.navigate", url=address)
        page.wait("document.readyState === 'complete'")
        yield page
    finally:
        process.kill()
        process.wait()
        os.close(to)
        os.close(answers)
