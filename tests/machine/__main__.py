"""`python -m tests.machine STEPS`: many random steps, in pieces. A piece has a seed; the next one is in a file.

An interrupted run goes on where it was. Every new fault is printed with the seed of its piece. Exit status 1 if there
was one.
"""

import os
import sys
from pathlib import Path

import torch
from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.machine.machine import Machine

STATE = Path("build/machine")
"""The next seed, and the steps that are still to do."""
EXAMPLES, STEPS = 10, 40


def run_piece(number: int) -> int:
    """Run one piece. Returns its number of steps."""
    options = settings(
        max_examples=EXAMPLES, stateful_step_count=STEPS, deadline=None, database=None, phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    before, Machine.survey = Machine.steps, {}
    run_state_machine_as_test(seed(number)(Machine), settings=options)
    return Machine.steps - before


def main(steps: int) -> int:
    os.fsync = lambda _: None
    torch.set_num_threads(1)
    number, left, num_faults = 0, steps, 0
    if STATE.exists():
        number, left, num_faults = map(int, STATE.read_text().split())
    if left <= 0:
        left, num_faults = steps, 0
    while left > 0:
        left -= run_piece(number)
        for text in Machine.survey or ():
            print(f"seed {number}: {text}", flush=True)
            num_faults += 1
        number += 1
        STATE.parent.mkdir(exist_ok=True)
        STATE.write_text(f"{number} {left} {num_faults}\n")
        print(f"{max(left, 0):,} steps left; known faults met: {Machine.met}", flush=True)
    return int(num_faults > 0)


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1])))
