"""The command ``l2view`` in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any


def run(*arguments: str, code: int = 0, **options: Any) -> subprocess.CompletedProcess[str]:
    command = [str(Path(sys.executable).parent / "l2view"), *arguments]
    env = {**os.environ, "COLUMNS": "100", "TERM": "dumb"}
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=120, check=False, env=env, **options
    )
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    return done
