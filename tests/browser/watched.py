"""A page that remembers what its console and network complained of, and asks nothing outside this machine."""

from __future__ import annotations

from pathlib import Path

LOCAL = (
    "http://127.0.0.1",
    "http://localhost",
    "ws://127.0.0.1",
    "ws://localhost",
    "file:",
    "data:",
    "blob:",
)
LARGEST = 150_000  # bytes of a picture in the repository


class WatchedPage:
    """raw: playwright's page. console: every line. complaints: errors, exceptions, requests that left or failed."""

    def __init__(self, browser, size: dict, wait_ms: float, scheme: str = "light"):
        self._context = browser.new_context(viewport=size, color_scheme=scheme)
        self._context.set_default_timeout(wait_ms)
        self.console: list[str] = []
        self.complaints: list[str] = []
        self.raw = self._context.new_page()
        self.raw.on("console", self._hear)
        self.raw.on("pageerror", lambda error: self._complain(f"exception: {error}"))
        self.raw.on("request", self._see)
        self.raw.on("requestfailed", lambda request: self.console.append(f"no answer: {request.url}"))

    def __enter__(self) -> WatchedPage:
        return self

    def __exit__(self, *_) -> None:
        self._context.close()

    def save_picture(self, element, file: Path) -> None:
        """Write a screenshot of an element. Raises ValueError if it is too large for a repository."""
        png = element.screenshot(animations="disabled")
        if len(png) > LARGEST:
            raise ValueError(f"{file.name}: {len(png):,} bytes, more than {LARGEST:,}; show less")
        file.write_bytes(png)

    def _hear(self, message) -> None:
        line = f"{message.type}: {message.text} ({message.location.get('url', '')})"
        self.console.append(line)
        if message.type in ("error", "assert"):
            self.complaints.append(line)

    def _see(self, request) -> None:
        if not request.url.startswith(LOCAL):
            self._complain(f"request to elsewhere: {request.url}")

    def _complain(self, line: str) -> None:
        self.console.append(line)
        self.complaints.append(line)
