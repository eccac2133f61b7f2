"""A real browser, a real server, real runs; and every page is watched for what must never happen."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from served import GE, Served

from guided_evolution.testing import write_tiny_problem

if os.environ.get("CI") == "true":
    import playwright.sync_api as playwright
else:
    playwright = pytest.importorskip("playwright.sync_api", reason="needs Playwright: pip install playwright")

FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
# fails often enough to have something to show: broken syntax, a crash, no code at all
MODEL = """\
import hashlib
from guided_evolution.testing import scripted_reply

def reply(prompt):
    text = scripted_reply(prompt)
    kind = hashlib.sha256(prompt.encode()).digest()[2] % 10
    if kind == 0:
        return "I would rather not."
    if kind == 1:
        return text.replace("return", "retrun", 1)
    if kind == 2:
        return text.replace("    return", "    raise ValueError('expected 3 features')\\n    return", 1)
    return text
"""


@dataclass
class Watch:
    """What a page did that it must not do.

    Attributes:
        expected: Texts of console messages that a test provokes on purpose.
    """

    origin: str
    faults: list[str] = field(default_factory=list)
    expected: list[str] = field(default_factory=list)

    def attach(self, page: Any) -> None:
        page.on("console", self._console)
        page.on("pageerror", lambda error: self.faults.append(f"error: {error}"))
        page.on("request", self._request)
        page.on("dialog", lambda dialog: (self.faults.append(f"dialog: {dialog.message}"), dialog.dismiss()))

    def _console(self, message: Any) -> None:
        if message.type in ("error", "warning") and not any(text in message.text for text in self.expected):
            self.faults.append(f"console: {message.text}")

    def _request(self, request: Any) -> None:
        if not request.url.startswith((self.origin, "data:", "blob:", "file:")):
            self.faults.append(f"request to {request.url}")


def chromium() -> str:
    found = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if found is None:
        text = "needs Chromium: apt-get install chromium"
        pytest.fail(text) if os.environ.get("CI") == "true" else pytest.skip(text)
    return str(found)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    path = chromium()
    with playwright.sync_playwright() as started:
        opened = started.chromium.launch(executable_path=path, args=FLAGS)
        yield opened
        opened.close()


@pytest.fixture(scope="module")
def serve(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[Path], Served]]:
    """Serves a folder with the real command, on a free port."""
    processes = []

    def start(folder: Path) -> Served:
        command = [str(GE), "ui", str(folder), "--port", "0"]
        process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        processes.append(process)
        assert process.stderr is not None
        found = re.search(r"http://\S+", process.stderr.readline())
        assert found is not None
        return Served(found[0].rstrip("/"), folder)

    yield start
    for process in processes:
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 0


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the tiny problem, and one finished run of it."""
    folder = tmp_path_factory.mktemp("dashboard")
    write_tiny_problem(folder / "tiny")
    (folder / "model.py").write_text(MODEL)
    command = [str(GE), "run", "tiny", "--llm", "scripted:model.py", "--population", "6", "--generations", "4"]
    subprocess.run([*command, "--seed", "3", "--run", "runs/one"], cwd=folder, check=True, capture_output=True)
    return folder


@pytest.fixture(scope="module")
def dashboard(home: Path, serve: Callable[[Path], Served]) -> Served:
    return serve(home / "runs")


@pytest.fixture
def open_page(browser: Any) -> Iterator[Callable[..., Any]]:
    """Opens pages that are watched; a fault fails the test."""
    contexts, watches = [], []

    def opened(served: Served | None = None, *, width: int = 1280, scheme: str = "light") -> Any:
        context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(20_000)
        watch = Watch(served.address if served else "file:")
        watch.attach(page)
        watches.append(watch)
        page.watch = watch
        return page

    yield opened
    for context in contexts:
        context.close()
    assert [fault for watch in watches for fault in watch.faults] == []


@pytest.fixture(scope="module", autouse=True)
def no_proxy() -> None:
    os.environ["NO_PROXY"] = "127.0.0.1,localhost"
