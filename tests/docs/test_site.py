"""The site in a browser: what is searched is found, pictures are there, and a phone and the dark are fit to read on."""

import os
import re
import shutil
import subprocess
import sys
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from urllib.parse import unquote

import pytest

from tests.docs.pages import ROOT

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """Build the site; return its folder."""
    out = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--quiet", "-d", str(out)]
    done = subprocess.run(
        command, cwd=ROOT, env=os.environ | {"NO_MKDOCS_2_WARNING": "1"}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return out


def test_no_link_within_the_site_leads_nowhere(site):
    texts = {path: path.read_text(encoding="utf-8") for path in site.rglob("*.html") if path.name != "404.html"}
    names = {path: set(re.findall(r'\b(?:id|name)="?([^"\s>]+)', text)) for path, text in texts.items()}
    lost = []
    for path, text in texts.items():
        for link in re.findall(r'<a [^>]*href="?([^"\s>]+)', text):
            place, _, anchor = link.partition("#")
            if ":" in place:
                continue
            target = (path.parent / place).resolve() if place else path
            if not target.exists() or (anchor and target in names and unquote(anchor) not in names[target]):
                lost.append((path.relative_to(site).as_posix(), link))
    assert len(texts) > 40
    assert lost == []


@pytest.fixture(scope="module")
def browser():
    if not CHROMIUM:
        pytest.skip("no Chromium here")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def address(site):
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=site))
    Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


def test_no_page_lacks_a_picture_or_asks_another_host(site, browser, address):
    page, others = browser.new_page(), []
    page.on(
        "request", lambda request: request.url.startswith((address, "data:", "blob:")) or others.append(request.url)
    )
    pages = sorted(path.relative_to(site).as_posix() for path in site.rglob("*.html"))
    assert len(pages) > 40
    for name in pages:
        page.goto(f"{address}/{name}")
        broken = "[...document.images].filter(i => i.complete && !i.naturalWidth).map(i => i.src)"
        assert page.evaluate(broken) == [], name
    assert others == []
    page.close()


SEARCHES = {"balance": "balance", "ComfyUI": "comfyui", "nf4": "cards", "linear_mmd": "api/swd_losses"}


@pytest.mark.parametrize("word", SEARCHES)
def test_the_search_finds(browser, address, word):
    page = browser.new_page()
    page.goto(f"{address}/index.html")
    page.locator("input.md-search__input").click()
    page.keyboard.type(word)
    found = page.locator(".md-search-result__item a")
    found.first.wait_for(timeout=20_000)
    assert SEARCHES[word] in " ".join(link.get_attribute("href") for link in found.all())
    page.close()


@pytest.mark.parametrize("name", ["index", "presets", "losses", "results", "members/swd-eval", "api/swd_losses"])
def test_a_phone_scrolls_no_page_sideways(browser, address, name):
    page = browser.new_page(viewport={"width": 390, "height": 844})
    page.goto(f"{address}/{name}.html")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    page.close()


def test_whoever_likes_the_dark_gets_it(browser, address):
    page = browser.new_page(color_scheme="dark")
    page.goto(f"{address}/index.html")
    assert page.locator("body").get_attribute("data-md-color-scheme") == "slate"
    light = (
        "getComputedStyle(document.body).backgroundColor.match(/[0-9]+/g).slice(0, 3).reduce((a, b) => a + +b, 0) / 765"
    )
    assert page.evaluate(light) < 0.3
    page.close()
