"""What a seed makes of the world: its pool, its test set, the oracle's answers and the first labels.

Shape suffixes: N items of the pool, D components of a vector.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from engine.errors import ConfigError
from engine.pool.identity import draw_of
from engine.simulation.experiment import Experiment
from engine.simulation.worlds import Items, World

_LIES, _ANSWERS = 101, 102
"""Seeds of the hashes that decide whether the oracle is wrong about an item, and what it says then."""


class Setup(NamedTuple):
    """The pool, sorted by shard and key; the answer of the oracle to each of its items (N,) int64, true or not; the
    test set; the places of the first labels in the pool; and the classes without one among them."""

    pool: Items
    answer_N: NDArray[np.int64]
    test: Items
    first: NDArray[np.intp]
    missing: frozenset[int]


def setup_of(world: World, experiment: Experiment, seed: int) -> Setup:
    """The setup of a seed, always the same for it.

    Raises ConfigError if there are fewer items than the experiment asks for.
    """
    rng = np.random.default_rng([seed, 11])
    place_N, wanted = rng.permutation(len(world.items.key_N)), experiment.test.size
    if world.test is None:
        _require(wanted, len(place_N) - 1, "test.size")
        test, place_N = world.items.take(place_N[:wanted]), place_N[wanted:]
    else:
        _require(wanted, len(world.test.key_N), "test.size")
        test_N = rng.permutation(len(world.test.key_N))
        test = world.test.take(test_N[: wanted or len(test_N)])
    pool = _pool(world.items, _members(world, experiment, place_N, rng), experiment, rng)
    if pool.vector_ND.size:
        # One scale for all components: distances stay those of the embedding.
        middle_D = pool.vector_ND.mean(axis=0, dtype=np.float64).astype(np.float32)
        scale = np.float32(max(1e-12, float((pool.vector_ND - middle_D).std(dtype=np.float64))))
        pool, test = (part._replace(vector_ND=(part.vector_ND - middle_D) / scale) for part in (pool, test))
    answer_N = _answers(pool, world, experiment.oracle.noise)
    missing = _missing(world.classes, experiment, rng)
    return Setup(pool, answer_N, test, _first_labels(pool, missing, experiment, rng), missing)


def _require(wanted: int, there: int, key: str) -> None:
    if wanted > there:
        raise ConfigError(f"{key}={wanted}: only {there} items are there for it; lower it")


def _members(
    world: World, experiment: Experiment, place_N: NDArray[np.intp], rng: np.random.Generator
) -> NDArray[np.intp]:
    """The places of the pool's items in the world, a subset of `place_N`, which is in random order."""
    size, ratio = experiment.pool.size or len(place_N), experiment.pool.imbalance
    _require(size, len(place_N), "pool.size")
    if ratio == 1:
        return place_N[:size]
    label_N, num_classes = world.items.label_N[place_N], len(world.classes)
    share_C = ratio ** (-np.arange(num_classes) / max(1, num_classes - 1))
    wanted_C = np.empty(num_classes, np.int64)
    wanted_C[rng.permutation(num_classes)] = np.maximum(1, np.rint(size * share_C / share_C.sum()))
    there_C = np.bincount(label_N, minlength=num_classes)
    if (wanted_C > there_C).any():
        name, least = world.classes[int((there_C - wanted_C).argmin())], int((there_C / wanted_C).min() * size)
        raise ConfigError(f"pool.size={size}: too few items of class {name!r} for pool.imbalance; lower it to {least}")
    return np.concatenate([place_N[label_N == c][: wanted_C[c]] for c in range(num_classes)])


def _pool(items: Items, place_N: NDArray[np.intp], experiment: Experiment, rng: np.random.Generator) -> Items:
    """The items at these places and their near copies, sorted by shard and key. Where that is all as it is, it is the
    items themselves: their pixels may take gigabytes."""
    if not experiment.pool.copies:
        place_N = place_N[_order_of(items.shard_N[place_N], items.key_N[place_N])]
        is_all = np.array_equal(place_N, np.arange(len(items.key_N)))
        return items if is_all else items.take(place_N)
    items = items.take(place_N)
    spread = float(items.vector_ND.std()) * experiment.pool.copy_noise
    parts = [items]
    for number in range(1, experiment.pool.copies + 1):
        noise_ND = rng.standard_normal(items.vector_ND.shape, np.float32) * np.float32(spread)
        key_N = np.array([f"{key}~{number}" for key in items.key_N], object)
        parts.append(items._replace(key_N=key_N, vector_ND=items.vector_ND + noise_ND))
    joined = Items(*(np.concatenate(column) for column in zip(*parts, strict=True)))
    return joined.take(_order_of(joined.shard_N, joined.key_N))


def _order_of(shard_N: NDArray[np.object_], key_N: NDArray[np.object_]) -> NDArray[np.intp]:
    return np.lexsort((key_N.astype(str), shard_N.astype(str)))


def taken_for(world: World) -> list[list[int]]:
    """By class the numbers of those that it may be taken for: of its group, or else all others.

    Raises ConfigError for an unknown class, one that is given twice, and a group of one.
    """
    number = {name: place for place, name in enumerate(world.classes)}
    others = [[n for n in number.values() if n != own] for own in number.values()]
    grouped: set[str] = set()
    for group in world.confusions:
        if unknown := set(group) - set(number):
            known = ", ".join(world.classes)
            raise ConfigError(f"oracle.confusions: {min(unknown)!r} is no class; the classes: {known}")
        if len(group) < 2:
            why = "is alone in its group, and a wrong answer stays in it"
            raise ConfigError(f"oracle.confusions: {group} {why}; give another class, or leave the group out")
        for name in group:
            if name in grouped:
                raise ConfigError(f"oracle.confusions: {name!r} is given twice; give a class once, in one group")
            grouped.add(name)
            others[number[name]] = [number[other] for other in group if other != name]
    return others


def _answers(pool: Items, world: World, noise: float) -> NDArray[np.int64]:
    """What the oracle says of each item. It depends on the item alone: the same lie in every seed and strategy."""
    answer_N, others = pool.label_N.copy(), taken_for(world)
    for place, (shard, key) in enumerate(zip(pool.shard_N, pool.key_N, strict=True)):
        if draw_of(shard, key, _LIES) < noise * 2**64:
            choices = others[answer_N[place]]
            answer_N[place] = choices[draw_of(shard, key, _ANSWERS) % len(choices)]
    return answer_N


def _missing(classes: list[str], experiment: Experiment, rng: np.random.Generator) -> frozenset[int]:
    first = experiment.first_labels
    if first.kind != "biased":
        return frozenset()
    if isinstance(first.missing, list):
        if unknown := set(first.missing) - set(classes):
            known = ", ".join(classes)
            raise ConfigError(f"first_labels.missing: {min(unknown)!r} is no class; the classes: {known}")
        found = {classes.index(name) for name in first.missing}
    else:
        found = set(rng.permutation(len(classes))[: first.missing].tolist())
    if len(found) >= len(classes):
        raise ConfigError(f"first_labels.missing: all {len(classes)} classes are missing; leave some")
    return frozenset(found)


def _first_labels(
    pool: Items, missing: frozenset[int], experiment: Experiment, rng: np.random.Generator
) -> NDArray[np.intp]:
    """The places of the first labels in the pool, ascending. Which ones never depends on what the oracle says."""
    first = experiment.first_labels
    count = experiment.budget if first.kind == "none" else first.count
    place_N = rng.permutation(len(pool.key_N))
    if first.kind == "biased":
        place_N = place_N[~np.isin(pool.label_N[place_N], list(missing))]
    elif first.kind == "one_source":
        names, number_N = np.unique(pool.shard_N.astype(str), return_inverse=True)
        place_N = place_N[np.argsort(rng.permutation(len(names))[number_N[place_N]], kind="stable")]
    _require(count, len(place_N), "first_labels.count")
    bought = experiment.rounds * experiment.budget
    _require(bought, len(pool.key_N) - count, "rounds x budget")
    return np.sort(place_N[:count])
