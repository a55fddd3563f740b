"""Shares of a population by several random samples together. All intervals are 95 % ones.

Shape suffixes: R samples.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from vaal.proportions import CONFIDENCE, Share


class Samples(NamedTuple):
    """R simple random samples of what was not known of a population, each with R shares known otherwise.

    `size_R` (R,) counts the cases of each sample, at least one; `unknown_R` (R,) is the share of the population that it
    was drawn from, above 0. Together they tell most when each case weighs 1 / unknown: the variance of the population's
    share by one sample is unknown² p (1 - p) / size.
    """

    size_R: NDArray[np.float64]
    unknown_R: NDArray[np.float64]

    def share(self, known_R: NDArray[np.float64], hits_R: NDArray[np.float64], num_shares: int) -> Share:
        """The population's share of a kind, of which `known_R` (R,) is the share known outside of each sample, and
        `hits_R` (R,) the cases in it.

        The interval is simultaneous for `num_shares` such shares (Bonferroni). It is Korn and Graubard's (Survey
        Methodology 24, 1998), which is Clopper and Pearson's exact one at the effective size of a weighted sample
        (Kish); of equal weights it is exact.
        """
        # Of each command only what it needs is imported: this takes half a second.
        from scipy import stats

        case_R = 1 / self.unknown_R
        weight_R = self.size_R * case_R**2 / float(self.size_R @ case_R**2)
        whole, known, unknown = float(self.size_R @ case_R), float(weight_R @ known_R), float(weight_R @ self.unknown_R)
        value, effective = float(hits_R @ case_R) / whole, whole**2 / float(self.size_R @ case_R**2)
        hits, tail = value * effective, (1 - CONFIDENCE) / num_shares / 2
        # The quantile of a beta distribution with a parameter of 0 is not a number.
        low = float(stats.beta.ppf(tail, hits, effective - hits + 1)) if hits > 0 else 0.0
        high = float(stats.beta.ppf(1 - tail, hits + 1, effective - hits)) if effective - hits > 1e-9 else 1.0
        value, low, high = (known + unknown * part for part in (value, low, high))
        return Share(value, low, high, int(self.size_R.sum()))
