"""A real browser for the pages that our tools write."""

from __future__ import annotations

import subprocess
from pathlib import Path

from support.tools import require_tool


def browse(page: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Debian's Chromium without a screen, network or sandbox (tests may run as root)."""
    chromium = require_tool("chromium", "chromium")
    return subprocess.run(
        [
            *(chromium, "--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"),
            *("--disable-dev-shm-usage", "--host-resolver-rules=MAP * ~NOTFOUND"),
            *("--enable-logging=stderr", "--log-level=0", "--virtual-time-budget=3000"),
            *(f"--user-data-dir={page.parent / 'browser'}", *arguments, page.as_uri()),
        ],
        capture_output=True,
        text=True,
        timeout=180,
        check=True,
    )
