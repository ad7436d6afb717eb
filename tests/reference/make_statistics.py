# Writes goldens/statistics.json: what scipy and statsmodels compute, for the tests of src/statistics. Needed only to
# write it again:
#   .venv/bin/pip install scipy statsmodels && .venv/bin/python tests/reference/make_statistics.py
# The committed file came from scipy 1.17.1 and statsmodels 0.15.0.
import json
import os

import numpy as np
import pandas as pd
import statsmodels.formula.api as smf
from scipy import stats
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.power import TTestIndPower
from statsmodels.stats.proportion import proportion_confint

random = np.random.default_rng(13)


def distributions():
    points = [0.001, 0.1, 0.5, 1, 2, 3, 5, 8, 12, 40]
    degrees = [1, 2, 3, 5, 10, 12.5, 29, 100, 999, 5000, 1e5]
    tails = [0.45, 0.25, 0.1, 0.05, 0.025, 0.005, 0.0005, 1e-6, 1e-10]
    shares = [0, 0.1, 0.3, 0.45, 0.5, 0.7]
    return {
        "normalCdf": [[x, stats.norm.cdf(x)] for p in points for x in (-p, p)],
        "normalQuantile": [[p, stats.norm.ppf(p)] for p in tails + [0.5, 0.9, 1e-20]],
        "tTwoSided": [[t, df, 2 * stats.t.sf(t, df)] for t in points for df in degrees],
        "tQuantile": [[p, df, stats.t.ppf(p, df)] for p in tails[:-1] + [0.975] for df in degrees],
        "chiSquaredTail": [[x, df, stats.chi2.sf(x, df)] for x in [0.001, 0.1, 1, 3.84, 10, 100, 300] for df in [1, 2, 3, 7, 50]],
        "fTail": [[f, a, b, stats.f.sf(f, a, b)] for f in [0.1, 1, 2.5, 5.5, 20] for a in [1, 2, 3, 7] for b in [1, 8, 32, 999]],
        "binomialCdf": [
            [k, n, p, stats.binom.cdf(k, n, p)]
            for n in [1, 5, 35, 100, 1000, 20000]
            for k in sorted({int(share * n) for share in shares})
            for p in [0.5, 0.1, 0.77]
        ],
    }


def proportions():
    counts = [[0, 25], [90, 100], [8, 10], [0, 20], [20, 20], [350, 1000]]
    wilson = [[k, n, level, *proportion_confint(k, n, 1 - level, method="wilson")] for k, n in counts for level in (0.9, 0.95, 0.99)]
    credits = [round(float(x), 1) for x in random.choice([0, 0.3, 0.6, 0.9, 1], 40, p=[0.3, 0.1, 0.1, 0.2, 0.3])]
    mean, se = float(np.mean(credits)), float(stats.sem(credits))
    return {"wilson": wilson, "credits": credits, "mean": mean, "se": se, "t": list(stats.t.interval(0.95, 39, mean, se))}


def discordant_pairs():
    rows = []
    for b, c in [[10, 25], [0, 6], [3, 3], [1, 0], [120, 171], [0, 0]]:
        exact = mcnemar([[0, b], [c, 0]], exact=True).pvalue
        # mid-p, Fagerland, Lydersen & Laake (2013), eq. 5: the exact one less the chance of what was seen
        mid = 1.0 if b == c else exact - stats.binom.pmf(min(b, c), b + c, 0.5)
        score = mcnemar([[0, b], [c, 0]], exact=False, correction=False) if b + c else None
        rows.append([b, c, exact, mid, score.statistic if score else 0.0, score.pvalue if score else 1.0])
    return rows


def families():
    families = [[0.01, 0.04, 0.03, 0.005], [0.2], [0.5, 0.9, 0.7], [0.001, 0.001, 0.04, 0.03, 0.6]]
    return [[p, list(multipletests(p, method="holm")[1])] for p in families]


def power():
    solve = TTestIndPower().solve_power
    sizes = [2, 3, 4, 5, 8, 10, 40]
    return {
        "smallestBySeeds": [[s, solve(nobs1=s, alpha=0.05, power=0.8)] for s in sizes],
        "power": [[d, s, solve(effect_size=d, nobs1=s, alpha=0.05)] for d in (0.3, 1, 2.5) for s in sizes if d * s < 30],
    }


def clustered(result, how):
    """What a fitted model says with errors of one kind."""
    ends = result.conf_int(0.05)
    return {"how": how, "se": list(result.bse), "low": list(ends[0]), "high": list(ends[1]), "p": list(result.pvalues)}


def linear_model():
    """3 x 2 cells, 3 runs each, 20 questions, a few answers missing, credit in steps of a quarter."""
    rows = []
    for run in range(18):
        encoder, language, shift = run % 3, run // 3 % 2, random.normal(0, 0.08)
        for question in range(20):
            if random.random() < 0.1:
                continue
            score = 0.5 + 0.1 * (encoder - 1) - 0.07 * language + 0.05 * encoder * language + shift + 0.2 * np.sin(question) + random.normal(0, 0.25)
            rows.append([round(min(1, max(0, score)) * 4) / 4, encoder, language, question, run])
    data = pd.DataFrame(rows, columns=["y", "encoder", "language", "question", "run"])
    # sum-to-zero coding whose level left out is the first: patsy leaves out the last
    for name in ("encoder", "language"):
        data[name + "_"] = data[name].max() - data[name]
    formula = "y ~ C(encoder_, Sum) * C(language_, Sum)"
    model = smf.ols(formula, data)
    question, run = data["question"].to_numpy(), data["run"].to_numpy()
    fits = [
        (model.fit(), "plain"),
        (model.fit(cov_type="cluster", cov_kwds={"groups": question}, use_t=True), "question"),
        (model.fit(cov_type="cluster", cov_kwds={"groups": np.stack([question, run], 1)}, use_t=True), "question, run"),
    ]
    # encoder_'s columns are of its levels 0 and 1, which are our 2 and 1: our order is the other
    order = [0, 2, 1, 3, 5, 4]
    names = [model.exog_names[i] for i in order]
    results = []
    for fit, how in fits:
        kinds = clustered(fit, how)
        joint = fit.f_test(np.eye(6)[[1, 2]])
        results.append({
            **{key: value if key == "how" else [value[i] for i in order] for key, value in kinds.items()},
            "joint": [float(joint.fvalue), float(joint.pvalue), float(joint.df_denom)],
            "covariance": fit.cov_params().to_numpy()[np.ix_(order, order)].tolist(),
        })
    coefficients = list(fits[0][0].params.to_numpy()[order])
    return {**{name: data[name].tolist() for name in ["y", "encoder", "language", "question", "run"]}, "names": names, "coefficients": coefficients, "fits": results}


def plain(value):
    """Numbers of numpy as those of Python, which JSON knows."""
    if isinstance(value, dict):
        return {key: plain(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(each) for each in value]
    return value.item() if isinstance(value, np.generic) else value


parts = {
    "distributions": distributions(),
    "proportions": proportions(),
    "mcnemar": discordant_pairs(),
    "holm": families(),
    "power": power(),
    "linearModel": linear_model(),
}
path = os.path.join(os.path.dirname(__file__), "goldens", "statistics.json")
with open(path, "w") as file:
    lines = ",\n".join(f"{json.dumps(name)}: {json.dumps(plain(part), separators=(',', ':'), allow_nan=False)}" for name, part in parts.items())
    file.write("{\n" + lines + "\n}\n")
