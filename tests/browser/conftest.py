"""The pages on a server of their own, and a browser that opens them.

A test takes ``open_page`` and gets one page after the other, in the width and the theme that it asks for. Whatever a
page writes to the console as an error or a warning, and whatever it asks of another server, fails the test that opened
it.
"""

from __future__ import annotations

import functools
import http.server
import os
import re
import shutil
import threading
from pathlib import Path

import pytest

from advfeat.checkout import CHECKOUT

PAGES = Path(os.environ.get("ADVFEAT_PAGES") or CHECKOUT / "runs" / "stage" / "_build" / "html")
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
NO_BROWSER = (
    "no browser: install Chromium (on Debian and Ubuntu: apt-get install chromium), or name the program of one in "
    "ADVFEAT_CHROMIUM"
)
FLAGS = (
    "--no-sandbox",  # a container's root has none
    "--disable-gpu",
    "--disable-quic",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",  # nothing leaves this machine
)
SECONDS = 180  # for one step: a machine that does other work is slow, and no test is about speed
# A page is at rest when its resources, its fonts and its formulas are there.
AT_REST = """async () => {
  await document.fonts.ready;
  if (window.MathJax && MathJax.startup) await MathJax.startup.promise;
}"""


def pytest_xdist_make_scheduler(config, log):
    """All tests of a page go to one process, which visits it once. A link check parses all pages, so it stays together.

    (`--dist loadgroup` of pytest-xdist 3.8 would be the usual way, but under pytest 9.2 it groups nothing.)
    """
    from xdist.scheduler import LoadScopeScheduling

    class ByPage(LoadScopeScheduling):
        def _split_scope(self, nodeid):
            page = re.search(r"\[([^\]]+?\.html)", nodeid)
            file, _, test = nodeid.partition("::")
            return page[1] if page else file if "test_links" in file else test

    return ByPage(config, log)


class _Handler(http.server.SimpleHTTPRequestHandler):
    protocol_version = "HTTP/1.1"  # one connection for all files of a page

    def log_message(self, *_arguments):
        """A test says what went wrong; the list of files would hide it."""


@pytest.fixture(scope="session")
def pages_folder():
    """The folder of the built pages; the tests fail without it, since `make test` builds it first."""
    if not (PAGES / "index.html").exists():
        pytest.fail(f"no pages in {PAGES}: build them (make book), or name their folder in ADVFEAT_PAGES")
    return PAGES


@pytest.fixture(scope="session")
def site(pages_folder):
    """The address at which the built pages are served, such as http://127.0.0.1:40001."""
    handler = functools.partial(_Handler, directory=str(pages_folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.fixture(scope="session")
def browser():
    """One browser for all tests. Without one they are skipped, but where CI says that it has to be there."""
    program = os.environ.get("ADVFEAT_CHROMIUM") or next(filter(None, map(shutil.which, BROWSERS)), None)
    if program is None:
        (pytest.fail if os.environ.get("CI") else pytest.skip)(NO_BROWSER)
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def new_page(browser, site):
    """As ``open_page``, for a test that judges by itself what the page complained of and asked for, and closes it."""

    def new_page(path, *, width=1280, height=900, theme="light", javascript=True, media="screen"):
        context = browser.new_context(
            viewport={"width": width, "height": height},
            color_scheme=theme,  # the theme of the pages follows the system's until a reader chooses
            reduced_motion="reduce",  # no transition is half done when a test looks
            java_script_enabled=javascript,
        )
        context.set_default_timeout(SECONDS * 1000)
        page = context.new_page()
        page.requests_made, page.complaints = [], []
        page.on("request", lambda request: page.requests_made.append(request.url))
        page.on("console", lambda message: _complain(page, message.type, message.text))
        page.on("pageerror", lambda error: _complain(page, "error", str(error)))
        if javascript:  # without it scripts count as requests that failed
            page.on("requestfailed", lambda request: _complain(page, "error", f"{request.url}: {request.failure}"))
        page.emulate_media(media=media)
        page.goto(f"{site}/{path}", wait_until="load")
        if javascript:
            page.evaluate(AT_REST)
        return page

    return new_page


@pytest.fixture
def open_page(new_page, site):
    """A function that opens a page at rest: ``open_page("book/01-....html", width=360, theme="dark")``.

    It returns Playwright's ``Page``. ``page.requests_made`` and ``page.complaints`` are the lists of the addresses that
    it asked for, and of what it wrote to the console as an error or a warning. After the test both are looked at.
    """
    opened = []

    def open_page(path, **options):
        opened.append((path, new_page(path, **options)))
        return opened[-1][1]

    yield open_page
    problems = []
    for path, page in opened:
        foreign = [url for url in page.requests_made if not url.startswith((site, "data:", "blob:"))]
        problems += [f"{path}: console {text}" for text in page.complaints]
        problems += [f"{path}: asks {url}" for url in foreign]
        page.context.close()
    assert not problems, "\n".join(problems)


def _complain(page, kind, text):
    if kind in ("error", "warning"):
        page.complaints.append(f"{kind}: {text}")
