"""Known answers for train/src/compare/statistics.rs: prints statistics.rs.in.

    pip install numpy scipy statsmodels
    python statistics.py > statistics.rs.in

(numpy 2, scipy 1, statsmodels 0.15). The p-values of the t test are those of scipy.stats.ttest_1samp, the intervals those
of its confidence_interval, Holm's those of statsmodels' multipletests, the sign test scipy.stats.binomtest, the powers
the noncentral t distribution scipy.stats.nct.
"""

import numpy as np
from scipy import stats
from statsmodels.stats.multitest import multipletests

SAMPLES = [
    [0.1330, 0.1457, 0.1413],
    [0.01, -0.02],
    [0.5, 0.7, -0.1, 0.3, 0.2, 0.9, -0.4],
    [1e-4, 3e-4, 2e-4, 2.5e-4, 1.5e-4],
    [-12.0, 3.0, 5.0, -7.0, 2.0, 2.5, -1.0, 0.25, 4.0, -3.5, 6.0, 1.0],
]
HOLM = [[0.01, 0.04, 0.03, 0.005], [0.5], [0.2, 0.2, 0.9, 0.001, 0.04, 0.0004], [0.6, 0.7]]
SIGNS = [(3, 0), (5, 0), (6, 1), (4, 4), (9, 2), (20, 8)]
EFFECTS = [(1.0, 5, 0.05), (0.5, 34, 0.05), (2.0, 3, 0.05), (6.0, 3, 0.05 / 6), (0.0, 4, 0.05), (3.0, 2, 0.05), (1.0, 40, 0.01)]
NEEDED = [(0.5, 0.05), (1.0, 0.05), (2.0, 0.05), (5.0, 0.05 / 6), (0.2, 0.05), (8.0, 0.05 / 3)]


def power(effect, n, alpha):
    threshold = stats.t.ppf(1 - alpha / 2, n - 1)
    shift = effect * np.sqrt(n)
    # SciPy gives NaN for a lower tail that is next to nothing.
    return stats.nct.sf(threshold, n - 1, shift) + np.nan_to_num(stats.nct.cdf(-threshold, n - 1, shift))


def needed(effect, alpha):
    return next(n for n in range(2, 2000) if power(effect, n, alpha) >= 0.8)


def listed(values):
    return "&[" + ", ".join(repr(float(v)) for v in values) + "]"


print("// Made by statistics.py; do not edit.")
print("struct Case {\n    sample: &'static [f64],\n    mean: f64,\n    sd: f64,\n    low: f64,\n    high: f64,\n    p: f64,\n}")
print("const PAIRED: &[Case] = &[")
for sample in SAMPLES:
    test = stats.ttest_1samp(sample, 0.0)
    interval = test.confidence_interval(0.95)
    fields = [np.mean(sample), np.std(sample, ddof=1), interval.low, interval.high, test.pvalue]
    names = ["mean", "sd", "low", "high", "p"]
    body = ", ".join(f"{name}: {float(value)!r}" for name, value in zip(names, fields))
    print(f"    Case {{ sample: {listed(sample)}, {body} }},")
print("];")
print("const HOLM: &[(&[f64], &[f64])] = &[")
for raw in HOLM:
    print(f"    ({listed(raw)}, {listed(multipletests(raw, method='holm')[1])}),")
print("];")
print("const SIGN: &[(usize, usize, f64)] = &[")
for first, second in SIGNS:
    print(f"    ({first}, {second}, {float(stats.binomtest(first, first + second).pvalue)!r}),")
print("];")
print("const POWERS: &[(f64, usize, f64, f64)] = &[")
for effect, n, alpha in EFFECTS:
    print(f"    ({effect!r}, {n}, {alpha!r}, {float(power(effect, n, alpha))!r}),")
print("];")
print("const NEEDED: &[(f64, f64, usize)] = &[")
for effect, alpha in NEEDED:
    print(f"    ({effect!r}, {alpha!r}, {needed(effect, alpha)}),")
print("];")
