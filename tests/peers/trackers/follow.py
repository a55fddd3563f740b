"""Give a training's losses to MLflow and to W&B, in two runs of which the second goes on, and print what they have.

Run by the project's own Python: what this peer's environment has comes after the project's own packages.
"""

import json
import sys

from engine.storage.location import Location
from engine.training.metrics import LOSSES
from engine.training.trackers import About, tracked


def rows(first: int, last: int) -> list[dict]:
    return [{"step": step, "epoch": 0, **dict.fromkeys(LOSSES), "task": step / 10} for step in range(first, last)]


def in_mlflow() -> dict:
    from mlflow import MlflowClient

    client = MlflowClient()
    (run,) = client.search_runs([client.get_experiment_by_name("vaal").experiment_id])
    found = client.get_metric_history(run.info.run_id, "loss/task")
    return {
        "name": run.info.run_name,
        "status": run.info.status,
        "params": run.data.params,
        "points": sorted((metric.step, metric.value) for metric in found),
    }


def main(names: list[str], folder: str) -> None:
    about = About("/campaigns/one", 2, "0123abcd", {"train.epochs": 3}, Location(folder))
    lines: list[str] = []
    for last in (20, 30):
        # The second begins with all rows again, as a training does that goes on from its checkpoint.
        with tracked(names, about, lines.append) as put:
            put(rows(0, 10))
            put(rows(10, last))
    found = in_mlflow() if "mlflow" in names and not lines else None
    sys.stdout.write("\n" + json.dumps({"lines": lines, "mlflow": found}))


if __name__ == "__main__":
    sys.path.append(sys.argv[1])
    main(sys.argv[3:], sys.argv[2])
