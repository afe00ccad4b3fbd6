#!/usr/bin/env python3
"""Opens report.html in headless Chromium, by DevTools over a pipe, as a desktop, a phone and in dark mode.

Checked: nothing on the console, no request to anywhere, every chart has ink, no sideways scrolling, and every chart
has its table of numbers.

    report_test.py REPORT [SCREENSHOT_PREFIX]

Exits with 77, which ctest takes for "skipped", where Chromium is not installed.
"""

import base64
import itertools
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile

VIEWS = [  # name, width, height, colour scheme
    ("desktop", 1280, 900, "light"),
    ("phone", 390, 844, "light"),
    ("dark", 1280, 900, "dark"),
]

# Of each canvas, how many pixels are not blank; and what makes a page scroll sideways.
INSPECT = """
(() => ({
  ink: [...document.querySelectorAll('canvas')].map(c => {
    const p = c.getContext('2d').getImageData(0, 0, c.width, c.height).data;
    let n = 0;
    for (let i = 3; i < p.length; i += 4) n += p[i] > 0;
    return n;
  }),
  tables: document.querySelectorAll('figure table tbody tr').length,
  articles: document.querySelectorAll('article').length,
  width: document.documentElement.scrollWidth,
}))()
"""


class Browser:
    """Chromium with file descriptors 3 and 4 as the two ends of DevTools."""

    def __init__(self, program, profile):
        down, to_browser = os.pipe()
        from_browser, up = os.pipe()

        def plug():  # the pipes may have got the numbers 3 and 4 themselves: move them out of the way first
            a, b = os.dup(down), os.dup(up)
            high_a, high_b = os.dup2(a, 100), os.dup2(b, 101)
            os.dup2(high_a, 3)
            os.dup2(high_b, 4)

        self.process = subprocess.Popen(
            [program, "--headless", "--remote-debugging-pipe", "--no-sandbox", "--disable-gpu", "--no-first-run",
             "--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-quic",
             f"--user-data-dir={profile}"],
            preexec_fn=plug, close_fds=False, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL)
        os.close(down)
        os.close(up)
        self.out, self.inp = to_browser, from_browser
        self.rest, self.ids, self.events = b"", itertools.count(1), []

    def call(self, method, session=None, **params):
        number = next(self.ids)
        message = {"id": number, "method": method, "params": params}
        if session:
            message["sessionId"] = session
        os.write(self.out, json.dumps(message).encode() + b"\0")
        while True:
            answer = self.read()
            if answer.get("id") == number:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']}")
                return answer["result"]
            self.events.append(answer)

    def wait_for(self, method):
        while not any(event.get("method") == method for event in self.events):
            self.events.append(self.read())

    def read(self):
        while b"\0" not in self.rest:
            chunk = os.read(self.inp, 1 << 20)
            if not chunk:
                raise RuntimeError("Chromium ended")
            self.rest += chunk
        line, self.rest = self.rest.split(b"\0", 1)
        return json.loads(line)

    def close(self):
        self.process.terminate()
        self.process.wait()


def view(browser, page, name, width, height, scheme, prefix):
    """Opens the page once; returns what is wrong with it."""
    target = browser.call("Target.createTarget", url="about:blank")["targetId"]
    session = browser.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
    for domain in ("Page", "Runtime", "Log", "Network"):
        browser.call(domain + ".enable", session)
    browser.call("Emulation.setDeviceMetricsOverride", session, width=width, height=height, deviceScaleFactor=1,
                 mobile=width < 600)
    browser.call("Emulation.setEmulatedMedia", session, features=[{"name": "prefers-color-scheme", "value": scheme}])
    browser.events.clear()
    browser.call("Page.navigate", session, url=page)
    browser.wait_for("Page.loadEventFired")
    found = browser.call("Runtime.evaluate", session, expression=INSPECT, returnByValue=True)["result"]["value"]
    if prefix:
        size = browser.call("Page.getLayoutMetrics", session)["cssContentSize"]
        clip = {"x": 0, "y": 0, "width": width, "height": min(size["height"], 12000), "scale": 1}
        shot = browser.call("Page.captureScreenshot", session, captureBeyondViewport=True, clip=clip)["data"]
        pathlib.Path(f"{prefix}-{name}.png").write_bytes(base64.b64decode(shot))

    wrong = []
    for event in browser.events:
        method, params = event.get("method"), event.get("params", {})
        if method in ("Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Log.entryAdded"):
            wrong.append(f"on the console: {json.dumps(params)[:300]}")
        if method == "Network.requestWillBeSent" and params["request"]["url"] != page:
            wrong.append(f"request to {params['request']['url'][:100]}")
    browser.call("Target.closeTarget", targetId=target)
    wrong += [f"chart {i} has no ink" for i, ink in enumerate(found["ink"]) if ink < 500]
    if not found["ink"] or not found["articles"]:
        wrong.append(f"{found['articles']} claims and {len(found['ink'])} charts; expected some")
    if found["tables"] < len(found["ink"]):
        wrong.append("a chart has no table of its numbers")
    if found["width"] > width:
        wrong.append(f"the page is {found['width']} pixels wide and scrolls sideways")
    print(f"{name}: {found['articles']} claims, {len(found['ink'])} charts, {len(wrong)} faults")
    return [f"{name}: {fault}" for fault in wrong]


def main():
    report = pathlib.Path(sys.argv[1]).resolve()
    prefix = sys.argv[2] if len(sys.argv) > 2 else None
    program = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if program is None:
        print("skipped: Chromium is not installed")
        return 77
    signal.alarm(90)  # a browser that hangs ends here, by the finally below
    signal.signal(signal.SIGALRM, lambda *_: sys.exit("Chromium did not answer for 90 s"))
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        browser = Browser(program, profile)
        try:
            wrong = [fault for v in VIEWS for fault in view(browser, report.as_uri(), *v, prefix)]
        finally:
            browser.close()
    print("\n".join(wrong))
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
