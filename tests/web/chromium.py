"""A real Chromium, steered over its DevTools socket: what a technician's phone makes of the page."""

import asyncio
import base64
import itertools
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import aiohttp

WITHIN = 30.0


class NavigatedError(Exception):
    """The page went elsewhere while it was asked."""


class Tab:
    """One tab. `told` is what the page wrote to its console, errors and refusals of the policy included."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self.told: list[str] = []
        self._socket, self._numbers = socket, itertools.count(1)

    async def call(self, method: str, **arguments: Any) -> dict[str, Any]:
        number = next(self._numbers)
        async with asyncio.timeout(WITHIN):
            await self._socket.send_json({"id": number, "method": method, "params": arguments})
            while True:
                message = await self._socket.receive_json()
                if message.get("method") in ("Runtime.exceptionThrown", "Log.entryAdded", "Runtime.consoleAPICalled"):
                    self.told.append(str(message["params"]))
                if message.get("id") == number:
                    if "error" in message:
                        raise NavigatedError(message)
                    return dict(message["result"])

    async def js(self, expression: str) -> Any:
        answer = await self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    async def until(self, expression: str) -> None:
        """Wait until the expression is true in the page."""
        try:
            async with asyncio.timeout(WITHIN):
                while True:
                    with suppress(NavigatedError):
                        if await self.js(f"Boolean({expression})"):
                            return
                    await asyncio.sleep(0.05)
        except TimeoutError:
            shown = await self.js("document.body.innerText")
            raise AssertionError(f"{expression} never held; the page shows:\n{shown}\n{self.told}") from None

    async def open(self, url: str) -> None:
        await self.call("Page.navigate", url=url)

    async def picture(self) -> bytes:
        """What is in view, as PNG."""
        return base64.b64decode((await self.call("Page.captureScreenshot", format="png"))["data"])


@asynccontextmanager
async def chromium(folder: Path, *, width: int = 390, height: int = 844, dark: bool = False) -> AsyncIterator[Tab]:
    """A phone-sized tab of a fresh profile in `folder`."""
    options = ["--headless=new", "--remote-debugging-port=0", f"--user-data-dir={folder}", "--disable-gpu"]
    options += ["--no-first-run", "--disable-background-networking", "--disable-dev-shm-usage", "--no-proxy-server"]
    if os.getuid() == 0:
        options.append("--no-sandbox")
    log = (folder / "chromium.log").open("wb")
    browser = await asyncio.create_subprocess_exec("chromium", *options, "about:blank", stdout=log, stderr=log)
    try:
        port = await _port(folder / "DevToolsActivePort", browser)
        async with aiohttp.ClientSession(f"http://127.0.0.1:{port}") as session:
            async with session.get("/json/list") as answer:
                pages = [each for each in await answer.json() if each["type"] == "page"]
            async with session.ws_connect(pages[0]["webSocketDebuggerUrl"], max_msg_size=0) as socket:
                tab = Tab(socket)
                for domain in ("Page", "Runtime", "Log"):
                    await tab.call(f"{domain}.enable")
                size = {"width": width, "height": height, "deviceScaleFactor": 1.5, "mobile": True}
                await tab.call("Emulation.setDeviceMetricsOverride", **size)
                scheme = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
                await tab.call("Emulation.setEmulatedMedia", features=scheme)
                yield tab
                await tab.call("Browser.close")
    finally:
        if browser.returncode is None:
            try:
                async with asyncio.timeout(5):
                    await browser.wait()
            except TimeoutError:
                browser.kill()
                await browser.wait()
        log.close()


async def _port(file: Path, browser: asyncio.subprocess.Process) -> int:
    async with asyncio.timeout(WITHIN):
        while True:
            assert browser.returncode is None, "chromium ended; see chromium.log"
            if text := _text(file):
                return int(text.split()[0])
            await asyncio.sleep(0.05)


def _text(file: Path) -> str:
    return file.read_text() if file.exists() else ""
