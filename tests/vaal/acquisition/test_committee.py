"""Committees, against definitions on stacked members and against scikit-learn's regressions."""

import pkgutil

import numpy as np
import pytest
import torch
from skactiveml.pool import average_kl_divergence
from skactiveml.pool import vote_entropy as activeml_vote_entropy
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from tests.stacked import by_definition, probabilities
from tests.views import FEATURES, FOLDS, images, networks_of, reference_of, task_of, vector_task, vectors, view_of
from vaal.acquisition import ACQUISITIONS, committee
from vaal.acquisition.committee import fit_heads
from vaal.acquisition.reference import Reference
from vaal.acquisition.view import View
from vaal.task.kinds import Kind
from vaal.task.model import Task

NAMES = ("vote_entropy", "consensus_kl", "ensemble_varr")
KINDS = ("classes", "labels", "segmentation", "embeddings")


def definitions(p_MBPK: Tensor) -> dict[str, Tensor]:
    """The columns (B,) from stacked probabilities."""
    votes_MBP, num_values = p_MBPK.argmax(dim=-1), p_MBPK.shape[-1]
    share_KBP = torch.stack([(votes_MBP == k).double().mean(dim=0) for k in range(num_values)])
    vote_BP = sum((-share * share.clamp_min(1e-300).log() for share in share_KBP), torch.zeros(()))
    found = by_definition(p_MBPK)
    return {
        "vote_entropy": -vote_BP.mean(dim=1),
        "consensus_kl": found["bald"],
        "ensemble_varr": found["variation_ratio"],
    }


def column(name: str, view: View) -> Tensor:
    found: Tensor = getattr(committee, name)(view)
    return found


def task_for(kind: str, num_members: int = 0) -> Task:
    return vector_task() if kind == "embeddings" else task_of(kind, num_members=num_members)  # type: ignore[arg-type]


def items(kind: str, count: int, seed: int = 0) -> Tensor:
    return vectors(count, seed) if kind == "embeddings" else images(count, seed)


def labelled(kind: str, count: int = 60) -> Reference:
    return reference_of(task_for(kind), items(kind, count, 7), items(kind, 10, 8))


def head_probabilities(view: View, heads: dict[str, Tensor]) -> Tensor:
    """The probabilities (M, B, P, K), one head after another."""
    logits = []
    for weight_CD, bias_C in zip(heads["weight"], heads["bias"], strict=True):
        if view.task.kind == "segmentation":
            logits.append(torch.einsum("bdhw,cd->bchw", view.features, weight_CD) + bias_C[:, None, None])
        else:
            logits.append(view.features @ weight_CD.T + bias_C)
    return torch.stack([probabilities(view.task.kind, logit) for logit in logits])


@pytest.mark.heavy
@pytest.mark.parametrize("kind", KINDS)
def test_of_heads_they_are_the_definitions(kind: str) -> None:
    networks = networks_of(task_for(kind), list(NAMES))
    # Divides the logits of the task learner alone.
    networks.scoring("task")[0].temperature.fill_(9.0)
    view = view_of(networks, items(kind, 40))
    heads = view.summary("vote_entropy")
    assert heads["weight"].shape[0] == FOLDS
    expected = definitions(head_probabilities(view, heads))
    for name in NAMES:
        found = column(name, view)
        assert found.std() > 0
        torch.testing.assert_close(found.double(), expected[name], rtol=1e-4, atol=1e-6)
        alone = view_of(networks._replace(summaries={name: networks.summaries[name]}), view.x_B)
        torch.testing.assert_close(column(name, alone), found)


@pytest.mark.parametrize("kind", ["classes", "labels", "segmentation"])
def test_of_members_they_are_the_definitions(kind: Kind) -> None:
    task = task_for(kind, num_members=4)
    task.temperature.fill_(0.2)
    view = view_of(networks_of(task, []), images(40))
    members = [Task(network, kind).eval() for network in task.networks]
    p_MBPK = torch.stack([probabilities(kind, member(view.x_B) / 0.2) for member in members])
    for name, expected in definitions(p_MBPK).items():
        found = column(f"member_{name}", view)
        assert found.std() > 0
        torch.testing.assert_close(found.double(), expected, rtol=1e-4, atol=1e-6)


def test_they_are_those_of_scikit_activeml() -> None:
    task = task_for("classes", num_members=4)
    view = view_of(networks_of(task, []), images(40))
    p_MBK = torch.stack([Task(network).eval()(view.x_B).double().softmax(dim=1) for network in task.networks])
    expected = torch.from_numpy(average_kl_divergence(p_MBK.numpy()))
    torch.testing.assert_close(column("member_consensus_kl", view).double(), -expected, rtol=1e-4, atol=1e-6)
    votes = activeml_vote_entropy(p_MBK.argmax(dim=2).T.numpy(), np.arange(p_MBK.shape[2]))
    torch.testing.assert_close(
        column("member_vote_entropy", view).double(), -torch.from_numpy(votes), rtol=0, atol=1e-6
    )


@pytest.mark.heavy
@pytest.mark.parametrize("kind", ["classes", "segmentation"])
def test_a_head_is_a_regression_of_all_folds_but_its_own(kind: str) -> None:
    reference = labelled(kind)
    part_ND, label_N = reference.part_ND.double().numpy(), reference.answer_N.numpy()
    found = fit_heads(reference)
    assert found["weight"].dtype == found["bias"].dtype == torch.float32
    variance = part_ND.var(axis=0).mean()
    fits = {}
    for penalty in (0.3, 0.1, 0.03, 0.01, 0.003, 0.001):
        heads = []
        for fold in range(FOLDS):
            others = (reference.part_fold_N != fold).numpy()
            heads.append(
                LogisticRegression(C=1 / (penalty * variance * others.sum()), tol=1e-8, max_iter=3000).fit(
                    part_ND[others], label_N[others]
                )
            )
        own = [(reference.part_fold_N == fold).numpy() for fold in range(FOLDS)]
        assert all(set(head.classes_) == set(label_N) for head in heads)
        losses = np.concatenate(
            [
                -head.predict_log_proba(part_ND[rows])[np.arange(rows.sum()), label_N[rows]]
                for head, rows in zip(heads, own, strict=True)
            ]
        )
        fits[losses.mean()] = heads
    best = fits[min(fits)]
    view = view_of(networks_of(task_for(kind), []), items(kind, 30))
    feature_BD = view.features.movedim(1, -1).flatten(0, -2) if kind == "segmentation" else view.features
    for head, weight_CD, bias_C in zip(best, found["weight"], found["bias"], strict=True):
        logit_BC = (feature_BD @ weight_CD.T + bias_C).double()
        expected_BC = torch.from_numpy(head.decision_function(feature_BD.double().numpy()))
        # But for the temperature, and for what all logits of an item have in common.
        logit_BC, expected_BC = (logit - logit.mean(dim=1, keepdim=True) for logit in (logit_BC, expected_BC))
        factor = (logit_BC * expected_BC).sum() / expected_BC.square().sum()
        torch.testing.assert_close(logit_BC, factor * expected_BC, rtol=0, atol=float(0.01 * logit_BC.abs().max()))


@pytest.mark.heavy
def test_of_labels_each_has_a_regression_of_its_own() -> None:
    reference = labelled("labels")
    found = fit_heads(reference)
    for label in range(reference.answer_N.shape[1]):
        answer_N1 = reference.answer_N[:, label : label + 1]
        alone = fit_heads(reference._replace(answer_N=answer_N1))
        for name, values in alone.items():
            torch.testing.assert_close(found[name][:, label : label + 1], values)
        as_classes = fit_heads(
            reference._replace(
                task=task_for("classes"), answer_N=answer_N1[:, 0].long(), logit_LC=reference.logit_LC[:, :2]
            )
        )
        # A label is a class of two: the logit of yes is what separates the two outputs.
        for name, values in as_classes.items():
            torch.testing.assert_close(values[:, 1] - values[:, 0], found[name][:, label], rtol=1e-4, atol=1e-5)


def test_heads_are_calibrated() -> None:
    # Features that say nothing of the class: an honest head says so, whatever the penalty.
    reference = labelled("embeddings", 90)
    generator = torch.Generator().manual_seed(0)
    random = reference._replace(
        part_ND=torch.randn(90, FEATURES, generator=generator), answer_N=torch.randint(4, (90,), generator=generator)
    )
    spread = [fit_heads(r)["weight"].norm(dim=2).mean() for r in (random, reference)]
    assert spread[0] < 0.2 * spread[1]


def test_a_class_without_items_has_a_low_logit_and_a_label_without_any_no_votes() -> None:
    reference = labelled("classes")
    kept = (reference.answer_N != 0).nonzero()[:, 0]
    heads = fit_heads(
        reference._replace(
            part_ND=reference.part_ND[kept],
            answer_N=reference.answer_N[kept],
            part_fold_N=reference.part_fold_N[kept],
        )
    )
    logit_MNC = torch.einsum("nd,mcd->mnc", reference.part_ND, heads["weight"]) + heads["bias"][:, None]
    assert (logit_MNC[..., 0] < logit_MNC[..., 1:].amin(dim=-1)).all()
    labels = labelled("labels")
    heads = fit_heads(labels._replace(answer_N=torch.zeros_like(labels.answer_N)))
    logit_MNC = torch.einsum("nd,mcd->mnc", labels.part_ND, heads["weight"]) + heads["bias"][:, None]
    assert torch.isfinite(logit_MNC).all()
    assert (logit_MNC < 0).all()


def test_a_committee_of_one_is_refused_by_name() -> None:
    reference = labelled("classes")
    with pytest.raises(ValueError, match=r"vote_entropy, consensus_kl, ensemble_varr need .* 2 folds .* there are 1"):
        fit_heads(reference._replace(part_fold_N=torch.full_like(reference.part_fold_N, 2)))
    # Numbers of folds need not be without gaps.
    assert len(fit_heads(reference._replace(part_fold_N=3 * reference.part_fold_N + 1))["bias"]) == FOLDS
    view = view_of(networks_of(task_for("classes"), []), images(3))
    for name in NAMES:
        with pytest.raises(ValueError, match="2 networks or more"):
            column(f"member_{name}", view)


def test_all_three_share_the_members_and_the_first_features() -> None:
    task = task_for("classes", num_members=1)
    runs = [0, 0]
    view = view_of(networks_of(task, []), images(3))
    for number, network in enumerate(task.networks):
        network.body.register_forward_hook(lambda *_, n=number: runs.__setitem__(n, runs[n] + 1))  # type: ignore[union-attr]
    _ = view.log_p
    for name in NAMES:
        column(f"member_{name}", view)
    assert runs == [1, 1]


def test_the_table_names_what_is_here() -> None:
    for name in NAMES:
        row = ACQUISITIONS[name]
        assert pkgutil.resolve_name(row.fit) is fit_heads
        assert pkgutil.resolve_name(row.function) is getattr(committee, name)
        assert pkgutil.resolve_name(row.dear) is getattr(committee, f"member_{name}")
