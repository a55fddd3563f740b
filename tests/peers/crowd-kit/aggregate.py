"""What crowd-kit makes of votes; run in its own environment (make peer-crowd-kit).

    python aggregate.py VOTES.npz FOUND.npz

VOTES: item, annotator, label (V,) whole numbers; truth (N,), -1 where unknown; iterations, tolerance.
FOUND: alpha; of each method NAME_probability (N, C), and NAME_seconds of the clock; of one_coin its skills (A,). Known
classes are given to dawid_skene only: crowd-kit's other methods take none.
"""

import sys
import time

import numpy as np
import pandas as pd
from crowdkit.aggregation import DawidSkene, MajorityVote, OneCoinDawidSkene
from crowdkit.metrics.data import alpha_krippendorff


def main() -> None:
    votes = np.load(sys.argv[1])
    table = pd.DataFrame({"task": votes["item"], "worker": votes["annotator"], "label": votes["label"]})
    truth, settings = pd.Series(votes["truth"]), {"n_iter": int(votes["iterations"]), "tol": float(votes["tolerance"])}
    known = {"true_labels": truth[truth >= 0]} if (truth >= 0).any() else {}
    methods = {
        "majority": (MajorityVote(), {}),
        "one_coin": (OneCoinDawidSkene(**settings), {}),
        "dawid_skene": (DawidSkene(**settings), known),
    }
    found = {"alpha": alpha_krippendorff(table)} if votes["with_alpha"] else {}
    for name, (method, options) in methods.items():
        begin = time.perf_counter()
        probability = method.fit_predict_proba(table, **options)
        found[f"{name}_seconds"] = time.perf_counter() - begin
        found[f"{name}_probability"] = probability.sort_index(axis=0).sort_index(axis=1).to_numpy()
    found["skills"] = methods["one_coin"][0].skills_.sort_index().to_numpy()
    np.savez(sys.argv[2], **found)


main()
