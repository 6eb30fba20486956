"""The report opens in a real browser, without the network and without errors."""

import shutil
import subprocess

import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
         "--disable-background-networking", "--disable-component-update", "--disable-sync"]  # fmt: skip


@pytest.mark.clients
@pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")
def test_the_report_is_shown_by_a_browser(run, tmp_path):
    shot = tmp_path / "report.png"
    page = (run / "report.html").resolve().as_uri()
    command = [CHROMIUM, *FLAGS, f"--user-data-dir={tmp_path / 'profile'}", "--window-size=390,1200"]
    shown = subprocess.run([*command, "--dump-dom", page], capture_output=True, text=True, timeout=120)
    assert shown.returncode == 0
    assert "<svg" in shown.stdout
    assert "bits per byte" in shown.stdout
    subprocess.run([*command, f"--screenshot={shot}", page], capture_output=True, timeout=120, check=True)
    assert shot.stat().st_size > 10_000
