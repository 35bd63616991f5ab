"""Log into SOGo as a person does, open the message of a subject, and keep what was seen: visit.py URL USER SUBJECT FOLDER.

The password comes on standard input.  Prints the text of the opened message.
"""

from __future__ import annotations

import sys
from pathlib import Path

from selenium.common.exceptions import WebDriverException
from selenium.webdriver import Chrome, ChromeOptions
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.expected_conditions import (
    element_to_be_clickable,
    presence_of_element_located,
)
from selenium.webdriver.support.ui import WebDriverWait

TURNS = 3
url, user, subject, folder = sys.argv[1:]
password = sys.stdin.readline().rstrip("\n")
options = ChromeOptions()
for flag in (
    "--headless=new",
    "--no-sandbox",
    "--disable-dev-shm-usage",
    "--window-size=1280,900",
    "--ignore-certificate-errors",
):
    options.add_argument(flag)


def visit(browser: Chrome) -> str:
    """Return the text of the message."""
    wait = WebDriverWait(browser, 60)
    browser.get(url)
    wait.until(element_to_be_clickable((By.CSS_SELECTOR, "input[ng-model='app.creds.username']"))).send_keys(
        user
    )
    field = browser.find_element(By.CSS_SELECTOR, "#passwordField")
    browser.save_screenshot(f"{folder}/sogo-login.png")
    field.send_keys(password, Keys.ENTER)
    row = wait.until(element_to_be_clickable((By.XPATH, f"//button[@aria-label='{subject}']")))
    browser.save_screenshot(f"{folder}/sogo-inbox.png")
    row.click()
    body = wait.until(
        presence_of_element_located((By.CSS_SELECTOR, ".msg-body, .sg-mail-part, [class*=mailer_]"))
    )
    browser.save_screenshot(f"{folder}/sogo-message.png")
    return str(body.text)


# Chromium gives a page up where an interface comes or goes (ERR_NETWORK_CHANGED), and containers' do: a person reloads.
for turn in range(TURNS):
    browser = Chrome(options=options, service=Service("/usr/bin/chromedriver"))
    try:
        print(visit(browser))
        break
    except WebDriverException:
        browser.save_screenshot(f"{folder}/sogo-failed-{turn}.png")
        Path(folder, f"sogo-failed-{turn}.html").write_text(browser.page_source)
        if turn == TURNS - 1:
            raise
    finally:
        browser.quit()
