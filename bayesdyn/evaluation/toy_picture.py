"""The picture of a posterior in one dimension: what it says of the toy with known noise, in and beside its gap."""

from collections.abc import Callable

import numpy as np
import torch

from bayesdyn.evaluation.disentanglement import Disentanglement
from bayesdyn.evaluation.scoring import to_double
from bayesdyn.posteriors.base import Posterior

_REACH, _POINTS, _DRAWS = 2.0, 200, 20  # whitened; data lie within 1.5


def toy_picture(make: Callable[[], Posterior], seed: int, settings: Disentanglement) -> dict[str, np.ndarray]:
    """Fit a posterior to the toy's rows of this seed and return what a picture is drawn from, all whitened.

    `rows_x`, `rows_y` [N], the data; over `x` [200], `mean`, `epistemic_std`, `aleatoric_std`, and the truth's `true_mean` and
    `true_std`; `draws` [20, 200], functions of one θ each, without noise.

    >>> from bayesdyn.posteriors import ExactGP
    >>> toy_picture(ExactGP, 0, Disentanglement(sizes=(20, 40), rows=40))["draws"].shape
    (20, 200)
    """
    # The rows of `disentanglement_rows`: those of a size are the first of the next.
    x, y = settings.toy.draw(max(settings.sizes), torch.Generator().manual_seed(seed))
    x, y = x[: settings.rows], y[: settings.rows]
    posterior = make()
    posterior.fit(x.to(posterior.dtype), y.to(posterior.dtype), generator=torch.Generator().manual_seed(seed))
    line = torch.linspace(-_REACH, _REACH, _POINTS, dtype=torch.float64).unsqueeze(1)
    with torch.no_grad():
        said = to_double(posterior.predict(line.to(posterior.dtype)))
        drawn = posterior.sample(_DRAWS, torch.Generator().manual_seed(seed))(line.to(posterior.dtype).unsqueeze(0))
    values = {
        "rows_x": x,
        "rows_y": y,
        "x": line,
        "mean": said.mean,
        "epistemic_std": said.epistemic_variance.sqrt(),
        "aleatoric_std": said.aleatoric_variance.sqrt(),
        "draws": drawn.mean.double(),
        "true_mean": settings.toy.mean(line),
        "true_std": settings.toy.std(line),
    }
    return {name: value.squeeze(-1).numpy() for name, value in values.items()}
