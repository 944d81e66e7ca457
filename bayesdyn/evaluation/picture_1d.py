"""The picture of a posterior over one input: data with a gap, what is believed between and beyond them, and the truth."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float

from bayesdyn.errors import ConfigurationError
from bayesdyn.evaluation.scoring import to_double
from bayesdyn.evaluation.toys import NoisySine
from bayesdyn.posteriors.base import Posterior

_REACH = 5.5 / 4  # of the picture, in units of the data's


@dataclass(frozen=True)
class OneInput:
    """What is pictured: rows of the toy, draws of θ, points of the grid; raises `ConfigurationError` for fewer than 2 of any.

    >>> OneInput().rows
    200
    """

    rows: int = 200
    draws: int = 20
    points: int = 121
    toy: NoisySine = NoisySine()  # noqa: RUF009 (frozen)

    def __post_init__(self) -> None:
        if min(self.rows, self.draws, self.points) < 2:
            raise ConfigurationError(f"a picture wants two rows, draws and points or more; got {self}")


def picture_1d(make: Callable[[], Posterior], seed: int, settings: OneInput = OneInput()) -> dict[str, Float[np.ndarray, "..."]]:
    """Fit a posterior to the toy and return what it believes on a grid that reaches beyond the data, whitened and float32.

    `x`, `mean`, `epistemic_std`, `aleatoric_std`, `truth` and `noise_std` [G]; `draws` [k, G], means of one θ each; `data_x` and
    `data_y` [N]. Data of one seed are the same for every posterior.

    >>> from bayesdyn.posteriors import ExactGP
    >>> found = picture_1d(ExactGP, 0, OneInput(rows=20, draws=3, points=5))
    >>> found["draws"].shape, found["data_x"].shape
    ((3, 5), (20,))
    """
    toy = settings.toy
    x, y = toy.draw(settings.rows, torch.Generator().manual_seed(seed))
    posterior = make()
    posterior.fit(x.to(posterior.dtype), y.to(posterior.dtype), generator=torch.Generator().manual_seed(seed))
    edge = _REACH * float(toy.support().max())
    grid = torch.linspace(-edge, edge, settings.points, dtype=torch.float64).unsqueeze(1)
    at = grid.to(posterior.dtype)
    with torch.no_grad():
        predictive = to_double(posterior.predict(at))
        draws = posterior.sample(settings.draws, torch.Generator().manual_seed(seed))(at.unsqueeze(0)).mean
    values = {
        "x": grid[:, 0],
        "mean": predictive.mean[:, 0],
        "epistemic_std": predictive.epistemic_variance.sqrt()[:, 0],
        "aleatoric_std": predictive.aleatoric_variance.sqrt()[:, 0],
        "truth": toy.mean(grid)[:, 0],
        "noise_std": toy.std(grid)[:, 0],
        "draws": draws[..., 0],
        "data_x": x[:, 0],
        "data_y": y[:, 0],
    }
    return {name: value.float().numpy() for name, value in values.items()}
