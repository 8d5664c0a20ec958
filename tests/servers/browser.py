"""Opens the agent's page in a real browser, and tells what is there: URL, driver, browser, folder for screenshots."""

import json
import sys
import tempfile

from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait

url, driver, browser, folder = sys.argv[1:]
LOOKS = {"light": ("light", 1280, 900), "dark": ("dark", 1280, 900), "phone": ("light", 390, 844)}

profile = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
options = webdriver.ChromeOptions()
options.binary_location = browser
options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
for switch in (
    "headless",
    "no-sandbox",
    "disable-gpu",
    "disable-quic",
    "no-first-run",
    "disable-background-networking",
    "disable-component-update",
    "disable-sync",
    f"user-data-dir={profile.name}",
):
    options.add_argument(f"--{switch}")
chrome = webdriver.Chrome(options=options, service=webdriver.ChromeService(executable_path=driver))
try:
    chrome.get(url)
    WebDriverWait(chrome, 30).until(
        lambda page: int(page.find_element(By.TAG_NAME, "body").get_attribute("data-snapshots") or 0) >= 2
    )
    rows = [
        {
            "service": row.get_attribute("data-service"),
            "method": row.get_attribute("data-method"),
            "route": row.get_attribute("data-route"),
            "total": int(row.find_element(By.CSS_SELECTOR, "td[data-column=total]").text.replace(",", "")),
        }
        for row in chrome.find_elements(By.CSS_SELECTOR, "table#routes tbody tr[data-route]")
    ]
    widths, backgrounds = {}, {}
    for name, (scheme, width, height) in LOOKS.items():
        chrome.execute_cdp_cmd(
            "Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
        )
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        chrome.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        chrome.save_screenshot(f"{folder}/{name}.png")
        widths[name] = chrome.execute_script("return document.documentElement.scrollWidth")
        backgrounds[name] = chrome.execute_script("return getComputedStyle(document.body).backgroundColor")
    errors = [entry["message"] for entry in chrome.get_log("browser") if "favicon" not in entry["message"]]
    print(json.dumps({"rows": rows, "widths": widths, "backgrounds": backgrounds, "errors": errors}))
finally:
    chrome.quit()
    profile.cleanup()
