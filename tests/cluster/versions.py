"""The versions that the files of cluster/ must name."""

import re
import tomllib
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())
PIN = re.compile(r"^([a-z0-9-]+)==([^\s;]+)", re.MULTILINE)
PINS = dict(PIN.findall((ROOT / "constraints.txt").read_text()))
IMAGE_TAG = f"{PROJECT['project']['version']}-ray{PINS['ray']}"
