"""The live page in a browser: Debian's Chromium without a screen."""

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from hyperrl.explorer.page import free_port

FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--window-size=1280,800"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """The page that opens where no agent is named."""
    command = [sys.executable, "-m", "hyperrl", "explore", "--no-browser"]
    # NiceGUI serves other ports where these are there.
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST", "NICEGUI"))}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as server:
        assert server.stdout is not None
        line = server.stdout.readline()
        assert line.startswith("http://127.0.0.1:"), "the page did not start"
        yield line.split()[0]
        server.terminate()


@pytest.fixture
def browser(address: str, tmp_path: Path) -> Iterator[Any]:
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if chromium is None or driver is None:
        pytest.skip("needs a browser: apt-get install chromium chromium-driver")
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for flag in (*FLAGS, f"--user-data-dir={tmp_path}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    page = webdriver.Chrome(options=options, service=Service(driver))
    try:
        page.get(address)
        yield page
    finally:
        page.quit()


def until(condition: Callable[[], Any], seconds: float = 40) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.05)


def test_dragging_a_slider_changes_environment_picture_and_weights(browser: Any) -> None:
    from selenium.webdriver import ActionChains

    def find(selector: str) -> Any:
        return browser.find_element("css selector", selector)

    # The page may put other elements in their place at any time: each of these looks and reads at once.
    def picture() -> str:
        return browser.execute_script("return document.querySelector('.drawing svg').innerHTML")

    def weights() -> list[str]:
        return browser.execute_script("return [...document.querySelectorAll('.layer img')].map(image => image.src)")

    def text(selector: str) -> str:
        return browser.execute_script("return document.querySelector(arguments[0]).innerText", selector).strip()

    until(lambda: browser.execute_script("return window.explorer !== undefined && explorer.shown > 3"))
    assert text("h1") == "pendulum"
    assert [name.text for name in browser.find_elements("css selector", ".lane h2 span")] == ["hyper-ppo", "concat-ppo"]
    find(".play").click()
    until(lambda: text(".play").endswith("play"))
    before = text(".lane .status")
    time.sleep(0.2)
    assert text(".lane .status") == before  # it stands still

    standing, default = picture(), weights()
    assert len(default) == 3
    thumb = find(".feature-2 .q-slider__thumb")
    ActionChains(browser).click_and_hold(thumb).move_by_offset(30, 0).move_by_offset(30, 0).release().perform()
    until(lambda: text(".feature-2 .value") != "1 m")
    assert re.fullmatch(r"1\.\d+ m", text(".feature-2 .value"))
    until(lambda: picture() != standing)
    until(lambda: len(weights()) == 3 and weights() != default)

    gain = find(".feature-3 .q-slider__thumb")
    ActionChains(browser).click_and_hold(gain).move_by_offset(-45, 0).move_by_offset(-4, 0).release().perform()
    until(lambda: text(".feature-3 .value") in ("-0.3", "0.3"))
    until(lambda: "left: 45%" in gain.get_attribute("style") or "left: 55%" in gain.get_attribute("style"))

    longer = picture()
    find(".push").click()
    find(".to-default").click()
    until(lambda: text(".feature-2 .value") == "1 m")
    until(lambda: weights() == default)
    find(".surprise").click()
    until(lambda: text(".feature-2 .value") != "1 m")
    find(".play").click()
    until(lambda: text(".lane .status") != before)
    assert picture() not in (standing, longer)
    assert [entry for entry in browser.get_log("browser") if entry["level"] in ("SEVERE", "WARNING")] == []


def test_a_port_that_is_taken_is_named(address: str) -> None:
    port = int(address.rpartition(":")[2])
    with pytest.raises(ValueError, match=rf"port {port} cannot be used \(.*\): leave out --port for a free one"):
        free_port(port)
    assert free_port() != port
