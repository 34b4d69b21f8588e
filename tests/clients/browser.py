"""A browser opens the server's page, sends a message and sees the answer.

    python tests/clients/browser.py http://127.0.0.1:8000 target/page.png

Needs chromium, chromedriver and selenium. The embedded checkpoint calls the tool; its result is given by hand, as a
person would, and the model answers from it.
"""

import sys
import tempfile

from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import WebDriverWait

FLAGS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--window-size=420,900",
]
MARKUP = "<img src=x onerror=document.title='broken'>"


def main():
    base, screenshot = sys.argv[1], sys.argv[2]
    options = webdriver.ChromeOptions()
    options.binary_location = "/usr/bin/chromium"
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    with tempfile.TemporaryDirectory() as profile:
        for flag in [*FLAGS, f"--user-data-dir={profile}"]:
            options.add_argument(flag)
        driver = webdriver.Chrome(options, webdriver.ChromeService("/usr/bin/chromedriver"))
        try:
            chat(driver, base, screenshot)
        finally:
            driver.quit()


def chat(driver, base, screenshot):
    def wait(what, condition):
        return WebDriverWait(driver, 60).until(condition, what)

    def shown(css):
        return [element.text for element in driver.find_elements(By.CSS_SELECTOR, css)]

    def find(name):
        return driver.find_element(By.ID, name)

    driver.get(base)
    wait("the model's name", lambda _: find("model").text == "tiny-v32")
    find("settings").find_element(By.TAG_NAME, "summary").click()
    find("example").click()
    find("system").send_keys("You are a helpful assistant.")
    find("temperature").send_keys("0")
    find("settings").find_element(By.TAG_NAME, "summary").click()
    find("thinking").click()
    find("input").send_keys("weather in Lisbon", Keys.ENTER)
    wait("the call", lambda _: shown(".call pre") == ['{"city": "Lisbon"}'])
    wait("the place for its result", lambda _: driver.find_elements(By.CSS_SELECTOR, ".call textarea"))
    assert "get_weather" in shown(".reasoning")[0], shown(".reasoning")
    driver.find_element(By.CSS_SELECTOR, ".call textarea").send_keys("21 degrees and sunny")
    driver.find_element(By.CSS_SELECTOR, "article button").click()
    wait("the answer", lambda _: shown(".assistant .text") == ["The weather in Lisbon is 21 degrees and sunny."])
    wait("its speed", lambda _: len(shown(".speed")) == 2)
    assert "tokens/s" in shown(".speed")[1] and "first token" in shown(".speed")[1], shown(".speed")
    driver.save_screenshot(screenshot)

    # What looks like HTML stays text, and nothing on the page breaks the policy.
    find("input").send_keys(MARKUP, Keys.ENTER)
    wait("the message", lambda _: shown(".user .text")[-1] == MARKUP)
    wait("the end", lambda _: find("send").is_enabled())
    assert not driver.find_elements(By.CSS_SELECTOR, "#log img") and driver.title == "tiny-v32"
    find("clear").click()
    assert shown("#log article") == []
    # An error is shown.
    find("settings").find_element(By.TAG_NAME, "summary").click()
    find("tools").clear()
    find("tools").send_keys("[{")
    find("input").send_keys("hello", Keys.ENTER)
    wait("the error", lambda _: "not JSON" in find("status").text)
    width = driver.execute_script("return document.documentElement.scrollWidth - window.innerWidth")
    assert width <= 0, f"the page is {width} pixels too wide for a phone"
    problems = [entry for entry in driver.get_log("browser") if entry["level"] == "SEVERE"]
    assert not problems, problems
    print(f"ok browser, {screenshot}")


main()
