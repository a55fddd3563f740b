"""The call at the end of a stage, hooks.on_stage: one POST with JSON, retried, and never the end of a run."""

import os
import time
from typing import Any

import requests

from engine.campaign.folder import Campaign
from engine.campaign.manifests import Manifest
from engine.campaign.stages import Log
from engine.config.hook_options import VARIABLE, shown

WAITS = (1.0, 2.0, 4.0)
"""Seconds before each further try."""
ANSWER_SECONDS = 5.0


def target_of(option: str) -> str:
    """The URL that is called; empty for none, or where its variable is not set."""
    return os.environ.get(option.removeprefix(VARIABLE), "") if option.startswith(VARIABLE) else option


def call_hook(campaign: Campaign, command: str, manifest: Manifest, log: Log) -> None:
    """POST what a stage made to hooks.on_stage, if that is set. What goes wrong is logged, without secrets."""
    option = campaign.config.hooks.on_stage
    if not option:
        return
    url = target_of(option)
    if not url:
        log(
            f"hooks.on_stage={option}: the variable is not set here, so nothing was called; set it, and pass it to jobs"
        )
        return
    content = {
        "campaign": campaign.home.url,
        "round": campaign.round,
        "stage": command,
        "counts": manifest["counts"],
        "completed_at": manifest["completed_at"],
    }
    why = _post(url, content)
    for seconds in WAITS:
        if not why or not why[1]:
            break
        time.sleep(seconds)
        why = _post(url, content)
    if why:
        log(f"hooks.on_stage={shown(url)}: {why[0]} at the end of {command}; the round goes on without the call")


def _post(url: str, content: dict[str, Any]) -> tuple[str, bool] | None:
    """None where the call was taken; else why it was not, and whether it may be the next time."""
    try:
        # A redirection could lead anywhere, with what is posted.
        answer = requests.post(url, json=content, timeout=ANSWER_SECONDS, allow_redirects=False)
    except requests.ConnectionError:
        return "nothing answered", True
    except requests.Timeout:
        return f"no answer within {ANSWER_SECONDS:.0f} s", True
    except (requests.RequestException, ValueError) as error:
        # The texts of these errors have the URL in them.
        return f"{type(error).__name__}", False
    if answer.ok and not answer.is_redirect:
        return None
    return f"answered {answer.status_code}", answer.status_code in (408, 425, 429) or answer.status_code >= 500
