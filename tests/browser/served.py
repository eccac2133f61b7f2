"""What the browser's tests share."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

GE = Path(sys.executable).parent / "ge"


@dataclass
class Served:
    """A dashboard that is being served."""

    address: str
    folder: Path
