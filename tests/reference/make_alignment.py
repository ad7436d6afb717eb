# Writes goldens/alignment.json: what plain numpy and scipy make of stored rows, for the tests of src/alignment.
# Needed only to write it again:
#   .venv/bin/pip install numpy scipy && .venv/bin/python tests/reference/make_alignment.py
# The committed file came from numpy 2.4.6 and scipy 1.17.1.
import json
import os

import numpy as np
from scipy import linalg, special, stats

random = np.random.default_rng(21)


def lower_median(values, axis=0):
    """torch.median: of an even number the lower of the two in the middle."""
    return np.sort(values, axis=axis).take((values.shape[axis] - 1) // 2, axis=axis)


def without_outliers(rows):
    norms = np.linalg.norm(rows, axis=1)
    outlier = np.abs(norms - lower_median(norms)) > 3 * norms.std(ddof=1)
    replaced = rows.copy()
    replaced[outlier] = lower_median(rows)
    return replaced, int(outlier.sum())


def frechet(a, b):
    sa, sb = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    xa, xb = ((x - x.mean(0)) / np.sqrt(len(x) - 1) for x in (a, b))
    root_trace = np.linalg.svd(xa @ xb.T, compute_uv=False).sum()
    # the same by square roots, which lose digits where covariances are singular
    root = linalg.sqrtm(sa).real
    values = np.clip(np.linalg.eigvalsh(root @ sb @ root), 0, None)
    assert abs(np.sqrt(values).sum() / root_trace - 1) < 1e-4
    return float(((a.mean(0) - b.mean(0)) ** 2).sum() + np.trace(sa) + np.trace(sb) - 2 * root_trace)


def fast(a, b):
    """The published iteration, here in float64, where it stands still at tr(Sa Sb)."""
    sa, sb = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    return float(((a.mean(0) - b.mean(0)) ** 2).sum() + np.trace(sa) + np.trace(sb) - 2 * np.trace(sa @ sb))


def layer(image_rows, text_rows, width, scale):
    mix = random.normal(size=(width, width)) / np.sqrt(width) + np.eye(width)
    image = scale * (random.normal(size=(image_rows, width)) @ mix + random.normal(size=width))
    text = random.normal(size=(text_rows, width)) * np.linspace(0.3, 2, width) + 0.5
    image[3] *= 9
    text[[0, 7]] *= 12
    image, text = np.round(image, 3), np.round(text, 3)
    image_norm, text_norm = (np.linalg.norm(rows, axis=1).mean() for rows in (image, text))
    clean_image, image_outliers = without_outliers(image)
    clean_text, text_outliers = without_outliers(text)
    result = {
        "image": image.tolist(),
        "text": text.tolist(),
        "distance": frechet(clean_image / text_norm, clean_text / text_norm),
        "equalNormDistance": frechet(clean_image / image_norm, clean_text / text_norm),
        "normRatio": image_norm / text_norm,
        "imageOutliers": image_outliers,
        "textOutliers": text_outliers,
    }
    # its float32 is not that of numpy where covariances are singular
    if min(image_rows, text_rows) > 3 * width:
        result["fastDistance"] = fast(clean_image / text_norm, clean_text / text_norm)
    return result


def cosine(a, b):
    norms = np.linalg.norm(a, axis=-1, keepdims=True), np.linalg.norm(b, axis=-1, keepdims=True)
    return (a / norms[0]) @ (b / norms[1]).T


def recall(scores, relevant):
    """Mean over queries of a hit among the first k; there are no ties here."""
    order = np.argsort(-scores, axis=1)
    ranks = np.array([1 + min(np.flatnonzero(np.isin(order[i], relevant[i]))) for i in range(len(scores))])
    return {"recall": {str(k): float((ranks <= k).mean()) for k in (1, 5, 10)}, "medianRank": float(np.median(ranks))}


def retrieval(scores, owners):
    of = [np.flatnonzero(owners == i) for i in range(len(scores))]
    nearest = np.zeros(scores.shape[1])
    for row in scores:
        nearest[np.argsort(-row)[:10]] += 1
    return {
        "imageToText": {**recall(scores, of), "hubness": float(stats.skew(nearest))},
        "textToImage": recall(scores.T, [np.array([owner]) for owner in owners]),
    }


def retrieval_case(pictures=14, per_picture=2, width=9):
    concepts = random.normal(size=(pictures, width))
    rows = [np.round(concepts[i] + 0.8 * random.normal(size=(5, width)) + 2, 3) for i in range(pictures)]
    owners = np.repeat(np.arange(pictures), per_picture)
    words = [np.round(concepts[i] + 0.8 * random.normal(size=(3 + j % 3, width)) - 1, 3) for j, i in enumerate(owners)]
    means = [np.array([each.mean(0) for each in sets]) for sets in (rows, words)]
    pooled = cosine(*(mean - mean.mean(0) for mean in means))
    late = np.array([[cosine(text, picture).max(1).mean() for text in words] for picture in rows])
    top = lambda scores: np.sort(scores, axis=1)[:, -10:].mean(1)
    csls = 2 * pooled - top(pooled)[:, None] - top(pooled.T)[None, :]
    return {
        "rows": [each.tolist() for each in rows],
        "words": [each.tolist() for each in words],
        "owners": owners.tolist(),
        "pooled": {"scores": pooled.tolist(), **retrieval(pooled, owners)},
        "late": {"scores": late.tolist(), **retrieval(late, owners)},
        "csls": {"scores": csls.tolist(), **retrieval(csls, owners)},
    }


def spectra():
    cases = []
    for rows, columns in [(1, 1), (4, 4), (7, 5), (5, 8), (12, 3)]:
        matrix = np.round(random.normal(size=(rows, columns)), 3)
        cases.append({"matrix": matrix.tolist(), "values": np.linalg.svd(matrix, compute_uv=False).tolist()})
    low = np.round(random.normal(size=(6, 2)), 2) @ np.round(random.normal(size=(2, 5)), 2)
    cases.append({"matrix": low.tolist(), "values": np.linalg.svd(low, compute_uv=False).tolist()})
    return cases


def likelihood_case(groups=3, ways=4, width=5, words=11):
    """Captions read before each picture of their group and before a blank one: hidden states, and what they say."""
    head = np.round(random.normal(size=(words, width)), 3)
    read = lambda tokens, shift: np.round(shift + random.normal(size=(tokens, width)), 3)
    found, sums = [], {"own": 0.0, "blank": 0.0, "tokens": 0}
    ranks = {"raw": [], "withoutPrior": []}
    for _ in range(groups):
        labels = [random.integers(0, words, size=3 + i % 3) for i in range(ways)]
        # a caption before its own picture is nearer to its words
        own = lambda i, j: 0.9 * head[labels[j]] if i == j else 0
        given = [[read(len(labels[j]), own(i, j)) for j in range(ways)] for i in range(ways)]
        blank = [read(len(each), 0.3) for each in labels]

        def log_p(hidden, wanted):
            logits = hidden @ head.T
            return logits[np.arange(len(wanted)), wanted] - special.logsumexp(logits, axis=1)

        means = np.array([[log_p(given[i][j], labels[j]).mean() for j in range(ways)] for i in range(ways)])
        before = np.array([log_p(blank[j], labels[j]).mean() for j in range(ways)])
        for i in range(ways):
            sums["own"] += log_p(given[i][i], labels[i]).sum()
            sums["blank"] += log_p(blank[i], labels[i]).sum()
            sums["tokens"] += len(labels[i])
        for name, scores in (("raw", means), ("withoutPrior", means - before[None, :])):
            ranks[name].append(scores)
        found.append({
            "labels": [each.tolist() for each in labels],
            "given": [[each.tolist() for each in row] for row in given],
            "blank": [each.tolist() for each in blank],
        })
    first = lambda scores: [int(np.argmax(row) == i) for i, row in enumerate(scores)]
    recall_of = lambda name: {
        "imageToText": float(np.mean([first(scores) for scores in ranks[name]])),
        "textToImage": float(np.mean([first(scores.T) for scores in ranks[name]])),
    }
    return {
        "head": head.tolist(),
        "groups": found,
        "aScore": sums["own"] / sums["tokens"],
        "blank": sums["blank"] / sums["tokens"],
        "raw": recall_of("raw"),
        "withoutPrior": recall_of("withoutPrior"),
    }


layers = [layer(60, 47, 6, 8.0), layer(36, 41, 7, 1.0), layer(9, 31, 12, 3.0)]
golden = {
    "layers": layers,
    "mir": float(np.log10(sum(each["distance"] for each in layers))),
    "equalNormMir": float(np.log10(sum(each["equalNormDistance"] for each in layers))),
    "retrieval": retrieval_case(),
    "spectra": spectra(),
    "likelihood": likelihood_case(),
}
path = os.path.join(os.path.dirname(__file__), "goldens", "alignment.json")
with open(path, "w") as file:
    json.dump(golden, file)
    file.write("\n")
