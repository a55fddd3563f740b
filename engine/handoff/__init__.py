"""Handoff formats, one module each."""

from collections.abc import Callable
from typing import Any

from engine.campaign.folder import Campaign
from engine.handoff import generic

EXPORTERS: dict[str, Callable[[Campaign, Callable[[int, int], None]], dict[str, Any]]] = {"generic": generic.export}
