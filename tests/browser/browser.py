"""A headless Chromium that opens a page and tells what is wrong with it."""

import json
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
DRIVERS = ("chromedriver", "chromium.chromedriver")
HEIGHT = 900
"""Pixels of the window."""
MAX_SECONDS = 90
"""Until all plots of a page must be drawn, on a busy machine."""
MARKS = (
    ".scatterlayer .points path, .scatterlayer path.js-line, .barlayer .point path, .heatmaplayer image, .fills path"
)
"""What Plotly draws for values."""
PLOTS = f"""
return [...document.querySelectorAll(".plot")].map((plot) => {{
  const box = plot.getBoundingClientRect();
  const marks = [...plot.querySelectorAll({json.dumps(MARKS)})].filter((mark) => mark.getBoundingClientRect().height > 0
    || mark.getBoundingClientRect().width > 0);
  return {{name: plot.getAttribute("aria-label"), marks: box.width > 0 && box.height > 0 ? marks.length : 0}};
}});
"""


def find_chromium() -> tuple[str, str] | str:
    """(the browser, its driver), or why there is none."""
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    driver = next(filter(None, map(shutil.which, DRIVERS)), None)
    if browser is None:
        return f"no Chromium is installed ({', '.join(BROWSERS)})"
    return f"no driver of Chromium is installed ({', '.join(DRIVERS)})" if driver is None else (browser, driver)


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened:
    """A page as the browser shows it."""

    messages: list[str]
    """Errors and warnings of the console."""
    requests: list[str]
    """Addresses outside of the page that it asked for."""
    overflow: int
    """Pixels by which the page is wider than the window."""
    marks: dict[str, int]
    """By plot: the number of its visible marks."""


class Browser:
    """A window of a headless Chromium."""

    def __init__(self, browser: str, driver: str) -> None:
        options = webdriver.ChromeOptions()
        options.binary_location = browser
        for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"):
            options.add_argument(argument)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
        self.driver = webdriver.Chrome(options=options, service=Service(driver))

    def open(self, page: Path, *, width: int, scheme: str = "light") -> Opened:
        """Open a page in a window of that width, with everything unfolded, and wait for its plots."""
        size = {"width": width, "height": HEIGHT, "deviceScaleFactor": 1, "mobile": False}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        self._emulate(scheme)
        for log in ("browser", "performance"):
            self.driver.get_log(log)  # type: ignore[no-untyped-call]
        self.driver.get(page.as_uri())
        self._wait()
        self.run("document.querySelectorAll('details').forEach((details) => { details.open = true; })")
        return Opened(
            messages=[entry["message"] for entry in self.driver.get_log("browser")],  # type: ignore[no-untyped-call]
            requests=self._requests(page),
            overflow=self.run("return document.documentElement.scrollWidth - document.documentElement.clientWidth"),
            marks={plot["name"]: plot["marks"] for plot in self.run(PLOTS)},
        )

    def emulate(self, scheme: str) -> None:
        """Change the theme of an opened page, and wait until its plots are drawn again."""
        self.run("document.documentElement.dataset.plots = 'changing'")
        self._emulate(scheme)
        self._wait()

    def _emulate(self, scheme: str) -> None:
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})

    def _wait(self) -> None:
        """Wait until all plots are drawn."""
        end = time.monotonic() + MAX_SECONDS
        while self.run("return document.querySelector('.plot') && document.documentElement.dataset.plots") not in (
            None,
            "drawn",
        ):
            assert time.monotonic() < end, "plots are not drawn"
            time.sleep(0.05)

    def _requests(self, page: Path) -> list[str]:
        """The addresses of all requests but that of the page itself."""
        logged = self.driver.get_log("performance")  # type: ignore[no-untyped-call]
        events = [json.loads(entry["message"])["message"] for entry in logged]
        urls = [event["params"]["request"]["url"] for event in events if event["method"] == "Network.requestWillBeSent"]
        return [url for url in urls if url != page.as_uri() and not url.startswith(("data:", "blob:"))]

    def run(self, script: str) -> Any:
        """The value that a script returns in the page."""
        return self.driver.execute_script(script)

    def press(self, key: str) -> str:
        """Press a key; returns what has the focus then: its tag, class and text."""
        self.driver.find_element(By.TAG_NAME, "body")
        webdriver.ActionChains(self.driver).send_keys(getattr(Keys, key)).perform()
        element = self.driver.switch_to.active_element
        return f"{element.tag_name}.{element.get_attribute('class')}#{element.get_attribute('id')}"

    def quit(self) -> None:
        """Close the browser."""
        self.driver.quit()
