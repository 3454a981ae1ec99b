"""A headless Chromium that opens pages, clicks, types, measures times and takes screenshots."""

import asyncio
import base64
import threading
import time
from pathlib import Path

import choreographer

_WATCH = """
window.problems = [];
window.firstPicture = null;
// times of the last key and of the last change of the page after it
window.pressed = window.followed = 0;
document.addEventListener("keydown", () => { pressed = followed = performance.now(); }, true);
new MutationObserver(() => { followed = performance.now(); }).observe(document, {
  childList: true, subtree: true, attributes: true, characterData: true });
new MutationObserver((_, observer) => {
  if (!document.querySelector("[data-drawn]")) return;
  observer.disconnect();
  requestAnimationFrame(() => setTimeout(() => { window.firstPicture = performance.now(); }));
}).observe(document, { childList: true, subtree: true });
window.addEventListener("error", (event) => problems.push(event.message));
document.addEventListener("securitypolicyviolation",
  (event) => problems.push(event.violatedDirective + " " + event.blockedURI));
"""


class Page:
    """A page in headless Chromium: ``with Page() as page: page.open(address)``; every call waits for its result."""

    def __init__(self, width=1500, height=1100):
        self.size = width, height
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    def __enter__(self):
        self._thread.start()
        self._do(self._begin())
        return self

    def __exit__(self, *_):
        self._do(self._browser.close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5)

    async def _begin(self):
        self._browser = choreographer.Browser(headless=True, enable_sandbox=False)
        await self._browser.open()
        self._tab = await self._browser.create_tab("about:blank")
        await self._send("Page.enable")
        await self._send("Page.addScriptToEvaluateOnNewDocument", source=_WATCH)
        await self._resize(*self.size)

    def _do(self, coroutine):
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(60)

    async def _send(self, command, **params):
        answer = await self._tab.send_command(command, params)
        if "error" in answer:
            raise RuntimeError(answer["error"])
        return answer["result"]

    async def _resize(self, width, height):
        await self._send(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False
        )

    def resize(self, width, height):
        """Sets the size of the window in pixels."""
        self.size = width, height
        self._do(self._resize(width, height))

    def prefer(self, scheme):
        """Sets the preferred color scheme of the system, ``dark`` or ``light``."""
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self._do(self._send("Emulation.setEmulatedMedia", features=features))

    def open(self, address):
        """Opens an address without waiting for the page to load."""
        self._do(self._send("Page.navigate", url=address))

    def run(self, script):
        """Evaluates a JavaScript expression and returns its value."""
        answer = self._do(self._send("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True))
        if "exceptionDetails" in answer:
            raise RuntimeError(answer["exceptionDetails"]["exception"].get("description", script))
        return answer["result"].get("value")

    def wait(self, condition, seconds=30.0):
        """Waits until a JavaScript condition holds; returns the seconds."""
        started = time.perf_counter()
        while not self.run(f"Boolean({condition})"):
            if time.perf_counter() - started > seconds:
                raise TimeoutError(f"{condition} after {seconds} s; problems: {self.run('window.problems')}")
            time.sleep(0.01)
        return time.perf_counter() - started

    def press(self, key, **more):
        """Presses and releases a key."""
        for kind in ("keyDown", "keyUp"):
            self._do(self._send("Input.dispatchKeyEvent", type=kind, key=key, **more))

    def click(self, x, y):
        """Clicks at a point of the window."""
        self._do(self._send("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y))
        for kind in ("mousePressed", "mouseReleased"):
            self._do(self._send("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1))

    def picture(self, path, height=None):
        """Saves a PNG of the page, from its top."""
        width, window_height = self.size
        clip = {"x": 0, "y": 0, "width": width, "height": height or window_height, "scale": 1}
        answer = self._do(self._send("Page.captureScreenshot", format="png", captureBeyondViewport=True, clip=clip))
        Path(path).write_bytes(base64.b64decode(answer["data"]))
