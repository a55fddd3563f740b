"""What a round does that begins without a label: no discriminator, no task learner, and a spread over the pool."""

from engine.config.options import CampaignConfig
from engine.config.toml import override
from vaal.acquisition import ACQUISITIONS
from vaal.diversity import DIVERSIFIERS

SPREADS = ("herding", "typiclust")
"""Methods that spread a first batch over embeddings, the first whose limit admits the budget."""
OVERSAMPLE = 8.0
"""A random sample of so many times the budget is what the first batch is chosen from."""


def needs_labels(config: CampaignConfig) -> bool:
    """Whether something that the configuration trains or scores is learnt from labels."""
    needs = {need for name in config.acquisitions(has_task=config.has_task) for need in ACQUISITIONS[name].needs}
    return config.has_task or config.needs_method or bool({"task", "method"} & needs)


def without_labels(config: CampaignConfig) -> CampaignConfig:
    """The configuration of a round that begins without a label. One that asks for nothing that is learnt from labels
    stays as it is; of any other the rule is replaced, and the rest stays.

    On embeddings the batch is spread; on pixels it is a random sample, because they say little about what is alike.
    """
    if not needs_labels(config):
        return config
    budget, diversity = config.select.budget, "none"
    if config.sees_embeddings:
        diversity = next(name for name in SPREADS if budget <= (DIVERSIFIERS[name].most_picks or budget))
    values = {
        "score.acquisition": ["random"],
        "select.acquisition": "random",
        "select.diversity": diversity,
        "select.oversample": max(OVERSAMPLE, config.select.oversample),
        "train.task": "none",
        "task.model": "",
        "task.weights": "",
    }
    return override(config, values, "a round without labels")
