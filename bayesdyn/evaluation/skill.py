"""How much better than a reference, and for how long: CRPS skill against persistence and ridge-linear, and the valid horizon.

A reference predicts a Gaussian at every horizon: its own path without noise, with the root mean square of its residuals on the
training data as standard deviation. So its width is right at each horizon, and where nothing is to be learned it is hard to beat.
"""

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from bayesdyn.codec import BaseCodec
from bayesdyn.data import Transitions
from bayesdyn.distributions import Predictive
from bayesdyn.evaluation.baselines import LinearFunction, Persistence, RidgeLinear
from bayesdyn.evaluation.metrics import crps
from bayesdyn.evaluation.open_loop import Windows, replay, windows
from bayesdyn.model import Dynamics, DynamicsModel
from bayesdyn.rollout import Mean, SampledDynamics

# Beyond this many stretches of the training data, a residual's std is known well enough.
_TRAINING_WINDOWS = 1000


def gaussian_crps(residual: Float[Tensor, "W E"], std: Float[Tensor, "E"]) -> Float[Tensor, "E"]:
    """Return the mean CRPS of N(m, std²) for residuals y - m, in their unit; the mean absolute residual where the std is 0.

    >>> round(gaussian_crps(torch.zeros(1, 1), torch.ones(1)).item(), 4)  # (√2 - 1)/√π
    0.2337
    """
    zero = torch.zeros_like(residual).unsqueeze(0)
    return crps(Predictive(zero, zero, std.square().expand_as(zero)), residual)


def crps_skill(score: Float[Tensor, "*shape"], reference: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Return 1 - CRPS/CRPS(reference): 1 is perfect, 0 as good as the reference, below 0 worse.

    >>> crps_skill(torch.tensor(0.5), torch.tensor(2.0)).item()
    0.75
    """
    return 1 - score / reference


def valid_horizon(error: Float[Tensor, "times W E"], test_std: Float[Tensor, "E"]) -> Float[Tensor, "E"]:
    """Return the first h >= 1 at which the RMSE over W starts exceeds the std of the test states, H + 1 if none of 1..H does.

    `error` [H + 1, W, E] is that of the particle mean, in the unit of `test_std`. An error that is no number exceeds everything.

    >>> error = torch.tensor([0.0, 0.5, 0.9, 1.1]).reshape(4, 1, 1)
    >>> valid_horizon(error, torch.ones(1)).item(), valid_horizon(error[:3], torch.ones(1)).item()
    (3.0, 3.0)
    """
    fine = error.square().mean(1).sqrt() <= test_std
    fine[0] = True
    return fine.to(error.dtype).cumprod(0).sum(0)


class Reference:
    """A model without uncertainty of its own, and how far off it is at each horizon on its training data.

    `std[h]` [E] is the root mean square residual after h steps, in physical units.
    """

    def __init__(self, dynamics: SampledDynamics, codec: BaseCodec, train: Transitions, horizons: Sequence[int]) -> None:
        self._dynamics, self._codec = dynamics, codec
        longest = max(len(e) for e in train.episodes())
        # A horizon that the training data do not have has no residuals, and so no reference.
        self.horizons = tuple(sorted(h for h in horizons if h <= longest))
        residual = self._residual(windows(train, max(self.horizons, default=1), _TRAINING_WINDOWS))
        self.std = {h: residual[h].square().mean(0).sqrt() for h in self.horizons}

    def crps(self, test: Windows) -> dict[int, Float[Tensor, "E"]]:
        """Return the mean CRPS by horizon, physical units, at the horizons that both the training data and the windows have."""
        residual = self._residual(test)
        return {h: gaussian_crps(residual[h], self.std[h]) for h in self.horizons if h <= test.horizon}

    def _residual(self, cut: Windows) -> Float[Tensor, "times W E"]:
        return -replay(self._dynamics, cut, self._codec, propagation=Mean())[:, 0, 0]


def references(train: Transitions, codec: Callable[[], BaseCodec], horizons: Sequence[int]) -> dict[str, Reference]:
    """Return ridge-linear on the codec's features, with the mean of its weights, and persistence, fitted on the training data.

    >>> from bayesdyn import Codec
    >>> state = torch.linspace(1, 2, 9, dtype=torch.float64).unsqueeze(1)
    >>> data = Transitions.from_arrays(state, 0 * state, 0.5 * state)
    >>> {name: bool(reference.std[1] < 1e-3) for name, reference in references(data, Codec, (1,)).items()}
    {'ridge-linear': True, 'persistence': False}
    """
    posterior, ridge_codec, still = RidgeLinear(), codec(), Persistence(codec())
    DynamicsModel(ridge_codec, posterior).fit(train)
    still.fit(train)
    function = LinearFunction(posterior.mean.unsqueeze(0), posterior.noise_var)
    ridge = Dynamics(ridge_codec.frozen(torch.float64), function)
    return {
        "ridge-linear": Reference(ridge, ridge_codec, train, horizons),
        "persistence": Reference(still.sample(1), still.codec, train, horizons),
    }
