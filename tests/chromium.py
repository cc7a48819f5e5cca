"""A real Chromium without a screen for the tests of pages, and what it did: requests, errors, dialogs."""

from __future__ import annotations

import base64
import hashlib
import io
import os
import shutil
import subprocess
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

try:
    from playwright.sync_api import Error as BrowserError
except ImportError:  # then the tests that open something skip
    BrowserError = OSError  # type: ignore[assignment, misc]

ARGUMENTS = (
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update"),
)
AXE = "axe-core@4.10.3"
AXE_DIGEST = "Xm7bpRXnDSX2YE2YFfBk2FnF0ep6tmG7xPh8iHee8MIcrgq762Nkce856dYtJYLkuIoYZvGfTs/PbZhideTcEg=="


WIDE, NARROW = {"width": 1400, "height": 900}, {"width": 420, "height": 860}


class Visit:
    """One page in a window of its own: what it asked for and said is kept."""

    def __init__(self, context: Any) -> None:
        self.page = context.new_page()
        self.page.set_default_timeout(60_000)
        self.requests: list[str] = []
        self.said: list[str] = []
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.on("console", lambda message: self.said.append(f"{message.type}: {message.text}"))
        self.page.on("pageerror", lambda error: self.said.append(f"error: {error}"))
        self.page.on("dialog", lambda dialog: (self.said.append(f"dialog: {dialog.message}"), dialog.dismiss()))

    def open(self, path: Path) -> Any:
        self.page.goto(path.as_uri())
        return self.page

    def stayed_at_home(self, *pages: Path) -> bool:
        """Whether nothing but the pages themselves was asked for, and nothing failed or was said."""
        own = tuple(page.as_uri() for page in pages)
        return not self.said and all(url.startswith((*own, "data:", "blob:")) for url in self.requests)


@pytest.fixture(scope="session")
def chromium() -> Iterator[Any]:
    """The browser, or a skip that says what is missing."""
    program = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
    if not program:
        pytest.skip("no Chromium: install Debian's package chromium, or name the program in CHROMIUM")
    sync = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    # a run of the app in this process may have left TMPDIR at its own folder: the browser's sockets need a short path
    os.environ["TMPDIR"] = "/tmp"
    with sync.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=program, args=list(ARGUMENTS))
        yield browser
        browser.close()


@pytest.fixture
def visit(chromium: Any) -> Iterator[Callable[..., Visit]]:
    """Opens windows that share nothing with each other."""
    contexts = []

    def opened(**settings: Any) -> Visit:
        contexts.append(chromium.new_context(**{"viewport": WIDE, **settings}))
        return Visit(contexts[-1])

    yield opened
    for context in contexts:
        context.close()


@pytest.fixture(scope="session")
def axe(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The source of axe-core from the npm registry, or a skip."""
    if not shutil.which("npm"):
        pytest.skip("no npm to get axe-core with: install Node.js")
    folder = tmp_path_factory.mktemp("axe")
    done = subprocess.run(["npm", "pack", "--silent", AXE], cwd=folder, capture_output=True, text=True, check=False)
    packed = next(folder.glob("*.tgz"), None)
    if packed is None:
        pytest.skip(f"npm could not get {AXE}: {done.stderr.strip().splitlines()[-1:]}")
    content = packed.read_bytes()
    assert base64.b64encode(hashlib.sha512(content).digest()).decode() == AXE_DIGEST
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        member = archive.extractfile("package/axe.min.js")
        assert member
        return member.read().decode("utf-8")


def serious(page: Any, axe: str) -> list[str]:
    """What axe-core finds on the page that is serious or critical: rule and where."""
    page.evaluate(axe)
    found = page.evaluate("axe.run()")["violations"]
    return [
        f"{each['id']}: {node['target']} {node['failureSummary']}"
        for each in found
        if each["impact"] in ("serious", "critical")
        for node in each["nodes"]
    ]


def state(page: Any) -> dict[str, str]:
    """What the viewer says of itself, once it has drawn."""
    page.evaluate("() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
    return page.evaluate("() => Object.assign({}, document.querySelector('.viewer').dataset)")
