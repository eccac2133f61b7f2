"""Draws the README's picture: the front of a run as Plotly shows it, photographed by a headless Chromium.

python docs/make_front.py RUN docs/front.png
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from guided_evolution.plots.style import themed
from guided_evolution.run import open_run

OPTIONS = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--hide-scrollbars")


def main(run: str, target: str) -> None:
    """Writes the picture of a run's front."""
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        raise SystemExit("this needs Chromium on the PATH")
    figure = themed(open_run(run).plot_front(), dark=False).update_layout(width=900, height=520)
    with tempfile.TemporaryDirectory() as folder:
        page = Path(folder) / "front.html"
        figure.write_html(page, include_plotlyjs=True, config={"displayModeBar": False})
        shot = f"--screenshot={Path(target).absolute()}"
        command = [browser, *OPTIONS, f"--user-data-dir={folder}/profile", "--window-size=916,536"]
        subprocess.run([*command, "--virtual-time-budget=4000", shot, page.as_uri()], check=True, capture_output=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
