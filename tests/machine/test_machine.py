"""200 random steps of the machine, the same ones in every run."""

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.machine.machine import Machine

EXAMPLES, STEPS = 8, 25


@pytest.mark.heavy
def test_no_sequence_of_commands_and_disturbances_breaks_a_law() -> None:
    options = settings(
        max_examples=EXAMPLES, stateful_step_count=STEPS, derandomize=True, deadline=None, database=None,
        phases=[Phase.generate], suppress_health_check=list(HealthCheck), print_blob=False,
    )  # fmt: skip
    run_state_machine_as_test(Machine, settings=options)
