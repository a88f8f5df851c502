"""A browser for the dashboard's stories, and what it can tell about a page."""

import os
from pathlib import Path
from urllib.parse import urlparse

OUT = Path(__file__).resolve().parents[2] / "out/dashboard"
CHROMIUM = Path(os.environ.get("CHROMIUM", "/usr/bin/chromium"))
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]

# Text whose contrast with what is behind it is below 4.5 to 1 (3 to 1 where it is large), as WCAG 2 counts it.
LOW_CONTRAST = """
() => {
  const parse = (text) => {
    const values = text.match(/[\\d.]+/g)?.map(Number) ?? [0, 0, 0, 0];
    const scale = text.startsWith("color(") ? 255 : 1;
    return [values[0] * scale, values[1] * scale, values[2] * scale, values[3] ?? 1];
  };
  const over = (top, below) => [0, 1, 2].map((i) => top[i] * top[3] + below[i] * (1 - top[3])).concat(1);
  const light = (colour) => {
    const [r, g, b] = colour.slice(0, 3).map((v) => (v /= 255) <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const behind = (element) => {
    const layers = [];
    for (let at = element; at; at = at.parentElement) layers.unshift(parse(getComputedStyle(at).backgroundColor));
    return layers.reduce((below, top) => over(top, below), [255, 255, 255, 1]);
  };
  const low = [];
  const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  for (let node = walk.nextNode(); node; node = walk.nextNode()) {
    const element = node.parentElement;
    if (!node.textContent.trim() || !element.checkVisibility() || element.closest(":disabled, .hidden, .skip")) continue;
    const style = getComputedStyle(element);
    const back = behind(element);
    const text = light(over(parse(style.color), back));
    const ratio = (Math.max(text, light(back)) + 0.05) / (Math.min(text, light(back)) + 0.05);
    const size = parseFloat(style.fontSize);
    const needed = size >= 24 || (size >= 18.66 && Number(style.fontWeight) >= 700) ? 3 : 4.5;
    if (ratio < needed) low.push(`${node.textContent.trim().slice(0, 40)}: ${ratio.toFixed(2)}`);
  }
  return low;
}
"""

# Controls that a screen reader cannot name.
UNNAMED = """
() => [...document.querySelectorAll("button, a, input, select, textarea")]
  .filter((one) => one.checkVisibility())
  .filter((one) => !(one.textContent.trim() || one.ariaLabel || one.labels?.length || one.title))
  .map((one) => one.outerHTML.slice(0, 120))
"""

OVERFLOW = "() => document.documentElement.scrollWidth - document.documentElement.clientWidth"

# Whether anything is drawn on the first canvas.
PAINTED = """
() => {
  const canvas = document.querySelector("canvas");
  const data = canvas?.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data ?? [];
  let painted = 0;
  for (let i = 3; i < data.length; i += 4) painted += data[i] > 0;
  return painted;
}
"""


class Tab:
    """A page of a browser that remembers what it complained of."""

    def __init__(self, browser, url, width=1440, theme="light"):
        self.url = url
        self.complaints = []
        self.context = browser.new_context(
            viewport={"width": width, "height": 900 if width > 860 else 844}, color_scheme=theme, reduced_motion="reduce"
        )
        if folder := os.environ.get("DASHBOARD_FILES"):
            serve(self.context, url, Path(folder))
        self.page = self.context.new_page()
        self.page.set_default_timeout(30_000)
        self.page.on("console", self.heard)
        self.page.on("pageerror", lambda error: self.complaints.append(f"error: {error}"))

    def heard(self, message):
        url = message.location.get("url", "")
        # Kubernetes refuses the log of a container that has not started; the page asks again
        is_early = "400" in message.text and urlparse(url).path.endswith("/log")
        if message.type in ("error", "warning") and not is_early:
            self.complaints.append(f"{message.type}: {message.text} {url}")

    def open(self, path):
        self.page.goto(self.url + path)
        return self.page

    def close(self):
        self.context.close()
        assert self.complaints == [], f"the page complained: {self.complaints}"


def serve(context, url, folder):
    """Takes the dashboard's files from a folder (`DASHBOARD_FILES=services/dashboard/dist`) instead of the program, so that a
    change is tested without building the program."""
    policy = context.request.get(url + "/").headers.get("content-security-policy", "")
    interfaces = ("apis", "kube", "serving", "artifacts", "notebook", "readyz", "api", "s3")

    def answer(route):
        path = urlparse(route.request.url).path.strip("/")
        if path.split("/")[0] in interfaces:
            return route.fallback()
        file = folder / path
        file = file if path and file.is_file() else folder / "index.html"
        return route.fulfill(path=file, headers={"content-security-policy": policy})

    context.route(url + "/**", answer)
