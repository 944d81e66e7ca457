"""The formulas behind the figures of a page, each under the anchor that figures link to."""

import re
from collections.abc import Iterable

from markupsafe import Markup, escape

from bayesdyn.report.content import Formula

_PIECES = re.compile(r"[_^]\{|\}|[^_^}]+|.")
_TAGS = {"_{": "sub", "^{": "sup"}
_FORMULAS = (
    Formula(
        "predictive",
        "What is predicted",
        (
            "m = 1/n Σ_{i} μ_{i}",
            "epistemic = 1/n Σ_{i} (μ_{i} − m)^{2} + 1/n Σ_{i} e_{i},   aleatoric = 1/n Σ_{i} a_{i},   total = epistemic + "
            "aleatoric",
            "F(y) = 1/n Σ_{i} Φ((y − μ_{i}) / √(e_{i} + a_{i}))",
        ),
        "A prediction is a mixture of n draws of θ with mean μ, aleatoric variance a and, for a Gaussian process, an epistemic "
        "variance "
        "e of their own. Variances add; standard deviations never do.",
    ),
    Formula(
        "null",
        "Where a right model would land",
        (
            "θ_{r} ~ p(θ | D),   y^{r} = f_{θ_{r}}(x) + noise at all test points,   r = 1, …, R",
            "band = 5 % and 95 % quantile over r of score(prediction, y^{r})",
        ),
        "A calibrated model does not score zero. Truths are drawn from the model itself, one θ for all test points, and scored as "
        "the "
        "real one is; the prediction stays as it is. A wide band says that the test set tells little.",
    ),
    Formula(
        "nll",
        "Negative log-likelihood",
        ("NLL = −1/(J E) Σ_{j} log (1/n) Σ_{i} Π_{d} N(y_{jd} | μ_{ijd}, v_{ijd})",),
        "Nats per output, of the mixture: the product over outputs d is inside, the mean over points j outside. Smaller is better.",
    ),
    Formula(
        "crps",
        "Continuous ranked probability score",
        ("CRPS = ∫ (F(t) − 1[t ≥ y])^{2} dt", "from P particles: 1/P Σ |x_{k} − y| − 1/(P (P − 1)) Σ_{k} (2k − P − 1) x_{(k)}"),
        "The distance of the predicted distribution from what happened, in the unit of the output: the mean absolute error of a "
        "model "
        "without spread. Exact for mixtures, unbiased in the number of particles in open loop.",
        "Gneiting & Raftery 2007; Ferro 2014",
    ),
    Formula(
        "skill",
        "CRPS skill",
        ("skill_{h} = 1 − CRPS_{h} / CRPS_{h}(reference)",),
        "The reference is linear regression, with the root mean square of its residuals at each horizon on the training data as "
        "std.",
    ),
    Formula(
        "calibration",
        "Calibration and its area",
        ("u_{j} = F_{j}(y_{j})", "curve(p) = share of u_{j} ≤ p,   area = mean over p of |curve(p) − p|"),
        "The signed area has the sign that makes a model that is too sure positive.",
        "Kuleshov et al. 2018",
    ),
    Formula(
        "pit",
        "Probability integral transform",
        ("u_{j} = F_{j}(y_{j})", "of P particles: u = (#{x < y} + U (#{x = y} + 1)) / (P + 1),   U uniform"),
        "Uniform on [0, 1] for a calibrated model.",
    ),
    Formula(
        "coverage",
        "Coverage",
        ("coverage_{c} = share of u_{j} with (1 − c)/2 ≤ u_{j} ≤ (1 + c)/2",),
        "In open loop u is the rank of the truth among the particles at that horizon. The band is that of truths drawn from the "
        "model, "
        "one θ and noise of its own for every start.",
    ),
    Formula(
        "spread-skill",
        "Spread over error",
        ("√((P + 1)/P · mean_{j} Var_{h}) / RMSE_{h} → 1",),
        "Var is the unbiased variance of P exchangeable particles, one θ each.",
        "Fortin et al. 2014, equation 15",
    ),
    Formula(
        "rmse",
        "Error of the mean",
        ("RMSE_{h} = √ mean_{j} (mean_{k} x_{jk} − y_{j})^{2}",),
        "In the output's unit; angles are compared within (−π, π].",
    ),
    Formula(
        "interval",
        "Paired differences",
        ("d_{s} = score_{s}(model) − score_{s}(reference),   mean ± t_{0.975, k − 1} · std(d)/√k",),
        "On the same seed and data. From 20 pairs on the interval is a percentile bootstrap; with fewer that would be too short.",
    ),
    Formula(
        "spearman",
        "Error against epistemic std",
        ("ρ = rank correlation of √epistemic_{j} and |y_{j} − m_{j}|",),
        "Its ceiling is not 1: errors of a perfect model are random, too. Beside it stands what truths drawn from the model would "
        "give. "
        "The lines are root mean squares in groups of equal size.",
    ),
    Formula(
        "ause",
        "Sparsification",
        (
            "S(f) = RMSE without the share f of the largest √epistemic",
            "AUSE = (area(S) − area(oracle)) / (area(random) − area(oracle))",
        ),
        "The oracle removes the largest errors first: 0 is as good as that, 1 as good as chance.",
        "Ilg et al. 2018, section 5, here relative to random",
    ),
    Formula(
        "fan",
        "Open-loop fans",
        (
            "s_{t+1} = f_{θ}(s_{t}, a_{t}) + noise,   θ fixed along the trajectory, a_{t} as recorded",
            "epistemic_{h} = Var_{i}(mean_{k} s_{ik}) − 1/p mean_{i} Var_{k}(s_{ik}),   aleatoric_{h} = mean_{i} Var_{k}(s_{ik})",
        ),
        "n draws of θ with p noise paths each, split by analysis of variance; without the correction noise would count as "
        "ignorance. "
        "Bands are quantiles of all particles, the dark one ± 1.645 √epistemic within them. Starts are sorted by CRPS, averaged "
        "over "
        "the models.",
    ),
    Formula(
        "disentanglement",
        "The toy",
        ("y = 7 sin x + σ(x) ε,   σ^{2} = 0.01 + 9 cos^{2}(x/2),   x uniform on [−4, 4] without (−1, 1)",),
        "Pictures are in whitened units, x/√7 and y/5. Slopes are those of log mean variance over log number of rows; ratios are "
        "of "
        "means over the gap and over the support, and of a fit with twice the noise over the plain one.",
    ),
    Formula(
        "shift",
        "Shift score",
        (
            "g = Σ_{d} log(1 + epistemic_{d} / max(aleatoric_{d}, 10^{−6}))",
            "AUROC = P(g of a shifted point > g of one in distribution), ties half",
        ),
        "Twice the mutual information of y and θ, were both Gaussian. Changed physics can't be seen in inputs: there, expect one "
        "half.",
    ),
    Formula(
        "active",
        "Learning from rows that are asked for",
        (
            "by information: Σ_{d} ½ log(1 + epistemic_{d}/aleatoric_{d}),   by total variance: Σ_{d} (epistemic_{d} + "
            "aleatoric_{d})",
            "gain = 1 − area(curve)/area(random)",
        ),
        "The error is that on the test set over the std of the pool's targets.",
        "MacKay 1992, section 3",
    ),
    Formula(
        "exploitation",
        "Exploitation gap",
        (
            "gap = mean predicted return − realised return of the chosen plan",
            "in units of √ mean_{b} Var(returns of random plans from start b)",
        ),
        "Predicted on fresh draws of θ, not those that the plan was chosen by. What the gap of chosen plans exceeds that of random "
        "ones "
        "by is the planner's share: it seeks out the model's errors.",
    ),
    Formula(
        "regret",
        "Regret",
        ("regret = return of the same planner with the true dynamics − realised return",),
        "With the same random candidates and the same noise; in the unit of the exploitation gap.",
    ),
    Formula(
        "recalibration",
        "Recalibration",
        ("f → f̄ + s_{epi} (f − f̄),   noise variance → s_{ale}^{2} · noise variance",),
        "Per output, fitted on trajectories that are neither in training nor in test. A draw of θ stays one function.",
    ),
    Formula(
        "imagined",
        "What was imagined",
        ("s_{t+1} = f_{θ}(s_{t}, a_{t}) + noise,   a_{t} of the plan or policy in force, θ fixed along the trajectory",),
        "From the state at that moment; bands are quantiles over draws and noise paths.",
    ),
    Formula(
        "promise",
        "Planned and realised return",
        (
            "planned = Σ_{t} mean r(s_{t}, a_{t}, s_{t+1}) of the first plan over its horizon,   realised = Σ_{t} r_{t} of the "
            "same steps",
        ),
        "Without discount or terminal value; later plans may do better than the first.",
    ),
    Formula(
        "onestep",
        "One step ahead on trials",
        (
            "coverage = share of steps inside the central 90 % interval,   NLL = −mean log p(s_{t+1} | s_{t}, a_{t}, D before the "
            "trial)",
        ),
        "Of the model that chose the trial's actions, before it learned from it; NLL per output in whitened units.",
    ),
)
_UNDER_COMPARISONS = ("predictive", "null", "interval")
_OF_RUNS = {"imagined", "promise", "onestep"}


def formulas_for(anchors: Iterable[str]) -> list[Formula]:
    """Return the formulas that figures link to, in the order of this file; those of comparisons rest on three others.

    >>> [formula.anchor for formula in formulas_for(["nll"])]
    ['predictive', 'null', 'nll', 'interval']
    """
    wanted = {*anchors} - {""}
    if wanted - _OF_RUNS:
        wanted |= {*_UNDER_COMPARISONS}
    return [formula for formula in _FORMULAS if formula.anchor in wanted]


def mathematics(text: str) -> Markup:
    """Return a formula as HTML: `_{...}` lowers and `^{...}` raises, inside each other too.

    >>> str(mathematics("f_{θ_{r}} < x^{2}"))
    'f<sub>θ<sub>r</sub></sub> &lt; x<sup>2</sup>'
    """
    out, open_tags = [], []
    for piece in _PIECES.findall(text):
        if piece in _TAGS:
            open_tags.append(_TAGS[piece])
            out.append(f"<{_TAGS[piece]}>")
        elif piece == "}" and open_tags:
            out.append(f"</{open_tags.pop()}>")
        else:
            out.append(escape(piece))
    return Markup("".join(out))
