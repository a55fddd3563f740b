"""What one would write without this project: Ray Data's own reader, a network, and its Parquet writer.

    python tests/bench/ray_data_scores.py POOL OUTPUT [--address ADDRESS] [--max-errored-blocks N]

The network is the mean of an image's pixels. The images are decoded by Pillow, as the reader does by default.
"""

import argparse
from typing import Any

import numpy as np
import ray
import ray.data


def score(batch: dict[str, Any]) -> dict[str, Any]:
    """The key and the mean of the pixels of each image."""
    return {
        "key": batch["__key__"],
        "score": np.array([np.asarray(image).mean() for image in batch["jpg"]], np.float32),
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("pool")
    parser.add_argument("output")
    parser.add_argument("--address", default="local")
    parser.add_argument("--max-errored-blocks", type=int, default=0)
    options = parser.parse_args()
    local = {"num_cpus": 2, "object_store_memory": 1 << 30, "include_dashboard": False}
    ray.init(options.address, log_to_driver=False, **(local if options.address == "local" else {}))
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.max_errored_blocks = options.max_errored_blocks
    rows = ray.data.read_webdataset(options.pool, file_extensions=["tar"])
    rows.map_batches(score, batch_size=64).write_parquet(options.output)


if __name__ == "__main__":
    main()
