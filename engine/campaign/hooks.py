"""The call at the end of a stage, hooks.on_stage: one POST with JSON, retried, and never the end of a run."""

import os
import queue
import time
from threading import Thread
from typing import Any

import requests

from engine.campaign.folder import Campaign
from engine.campaign.manifests import Manifest
from engine.campaign.stages import Log
from engine.config.hook_options import VARIABLE, is_url, shown

WAITS = (1.0, 2.0, 4.0)
"""Seconds before each further try."""
ANSWER_SECONDS = 5.0
"""For the whole call: a server may send its answer drop by drop, or without end."""
Fault = tuple[str, bool]
"""Why a call was not taken, and whether it may be the next time."""


def target_of(option: str) -> str:
    """The URL that is called; empty for none, or where its variable is not set."""
    return os.environ.get(option.removeprefix(VARIABLE), "") if option.startswith(VARIABLE) else option


def call_hook(campaign: Campaign, command: str, manifest: Manifest, log: Log) -> None:
    """POST what a stage made to hooks.on_stage, if that is set. What goes wrong is logged, without secrets."""
    option = campaign.config.hooks.on_stage
    if not option:
        return
    url, named = target_of(option), option if option.startswith(VARIABLE) else shown(option)
    if not is_url(url):
        wrong, fix = ("holds no http:// or https:// URL", "correct it") if url else ("is not set here", "set it")
        log(f"hooks.on_stage={named}: the variable {wrong}, so nothing was called; {fix}, and pass it to jobs")
        return
    content = {
        "campaign": campaign.home.url,
        "round": campaign.round,
        "stage": command,
        "counts": manifest["counts"],
        "completed_at": manifest["completed_at"],
    }
    fault = _post(url, content)
    for seconds in WAITS:
        if not fault or not fault[1]:
            break
        time.sleep(seconds)
        fault = _post(url, content)
    if fault:
        log(f"hooks.on_stage={named}: {fault[0]} at the end of {command}; the round goes on without the call")


def _post(url: str, content: dict[str, Any]) -> Fault | None:
    """None where the call was taken."""
    found = queue.SimpleQueue[Fault | None]()
    # Not waited for: of an answer that comes drop by drop, no timeout of a socket makes an end.
    Thread(target=lambda: found.put(_posted(url, content)), name="hook", daemon=True).start()
    try:
        return found.get(timeout=ANSWER_SECONDS)
    except queue.Empty:
        return f"no answer within {ANSWER_SECONDS:.0f} s", True


def _posted(url: str, content: dict[str, Any]) -> Fault | None:
    try:
        # A redirection could lead anywhere, with what is posted. What the answer holds is not read.
        with requests.post(url, json=content, timeout=ANSWER_SECONDS, allow_redirects=False, stream=True) as answer:
            status, is_taken = answer.status_code, answer.ok and not answer.is_redirect
    except requests.ConnectionError:
        return "nothing answered", True
    except requests.Timeout:
        return f"no answer within {ANSWER_SECONDS:.0f} s", True
    except (requests.RequestException, ValueError) as error:
        # The texts of these errors have the URL in them.
        return f"{type(error).__name__}", False
    return None if is_taken else (f"answered {status}", status in (408, 425, 429) or status >= 500)
