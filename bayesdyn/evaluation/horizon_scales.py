"""`HorizonScales`: imagined trajectories made as wide at each horizon as held-out episodes ask for."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from bayesdyn.data import Transitions
from bayesdyn.errors import ConfigurationError, DataError, ShapeError
from bayesdyn.evaluation.open_loop import Windows, deviation, windows
from bayesdyn.model import DynamicsModel

_FEWEST_EPISODES, _FEWEST_WINDOWS = 5, 20
_LEAST = 1e-3


@dataclass(frozen=True)
class HorizonScales:
    """Factors s_kd of how far trajectories lie from their mean, k = 1, ..., H steps ahead in coordinate d, [H, E].

        x_k → m_k + s_k (x_k - m_k),   m_k = (1/P) Σ_i x_ki

    A trajectory stays the path of one θ, seen from nearer or further away; its mean stays where it is. It is the marginals of each
    horizon that are put right, in the coordinates that the codec predicts. The dynamics are as they were, and so are plans.

    >>> scales = HorizonScales(torch.tensor([[0.5], [2.0]]), level=0.9)
    >>> scales.widen(torch.tensor([[[0.0], [0.0]], [[-1.0], [1.0]], [[-1.0], [3.0]]])).flatten(1).tolist()
    [[0.0, 0.0], [-0.5, 0.5], [-3.0, 5.0]]
    """

    factors: Float[Tensor, "H E"]
    level: float

    def widen(self, paths: Float[Tensor, "times P *batch E"]) -> Float[Tensor, "times P *batch E"]:
        """Return trajectories [T + 1, P, ..., E], the start first, as wide as they should be.

        Raises `ShapeError` for more than H steps or other coordinates.
        """
        horizon, size = self.factors.shape
        if len(paths) > horizon + 1 or paths.shape[-1] != size:
            raise ShapeError(f"these scales are of {horizon} steps in {size} coordinates; got trajectories {list(paths.shape)}")
        start = torch.ones_like(self.factors[:1])
        factors = torch.cat([start, self.factors])[: len(paths)].to(paths)
        factors = factors.reshape(len(paths), *(1,) * (paths.dim() - 2), size)
        mean = paths.mean(1, keepdim=True)
        return mean + factors * (paths - mean)


def horizon_scales(
    model: DynamicsModel,
    held_out: Transitions,
    horizon: int,
    *,
    level: float = 0.9,
    starts: int = 200,
    particles: int = 100,
    generator: torch.Generator | None = None,
) -> HorizonScales:
    """Return the scales for which the central `level` interval of imagined trajectories holds that share of held-out ones.

        s_kd = the ⌈(W + 1) level⌉-th smallest of |y_w - m_w| / |q_w - m_w| over W starts, q_w the interval's end on the side of y_w

    Logged actions are replayed from starts in the held-out episodes; a particle has one θ and noise of its own. What is calibrated
    one step ahead need not be k steps ahead: noise of the observations does not add up along a trajectory, where a one-step model
    thinks that it does, and errors of successive steps go together. Starts of one episode err alike, so it is the number of
    episodes that says how well the scales are known.

    Raises `DataError` for rows that the fit has seen (as far as the posterior remembers them: `Recalibrated` does), for episodes
    shorter than `horizon`, fewer than 5 of them or 20 starts; `ConfigurationError` for numbers without a meaning.

    Source: conformal intervals as of Lei, G'Sell, Rinaldo, Tibshirani, Wasserman 2018, section 5.2, at each horizon.
    """
    if not 0 < level < 1 or horizon < 1 or particles < 2:
        raise ConfigurationError(
            f"horizon_scales wants 0 < level < 1, horizon >= 1 and particles >= 2; got {level}, {horizon}, {particles}"
        )
    model.check_unseen(held_out)
    paths = windows(held_out, horizon, starts)
    episodes, count = sum(len(e) >= horizon for e in held_out.episodes()), paths.states.shape[1]
    if episodes < _FEWEST_EPISODES or count < _FEWEST_WINDOWS:
        raise DataError(
            f"scales by horizon want at least {_FEWEST_EPISODES} episodes of {horizon} steps and {_FEWEST_WINDOWS} starts, since "
            f"neighbours in time err alike; got {episodes} and {count}; collect more, or lower the horizon"
        )
    errors = imagined_errors(model, paths, particles, generator or torch.Generator().manual_seed(0))
    return HorizonScales(_factors(errors[1:], level), level)


@torch.no_grad()
def imagined_errors(
    model: DynamicsModel, paths: Windows, particles: int, generator: torch.Generator
) -> Float[Tensor, "times P W E"]:
    """Return how far each of P particles is from the logged stretches, [H + 1, P, W, E]: one θ each, and noise of its own in each.

    `replay` moves all stretches with the same noise, for comparisons on common random numbers. The ends of an interval between P
    such particles are then wrong by the same share everywhere: of 90 % intervals of 100 particles, the coverage has a std of 3
    points, Beta(90, 11), however many stretches there are. Here these errors average out.
    """
    dtype = model.posterior.dtype
    dynamics = model.sample(particles, generator)
    states = [paths.states[0].to(dtype).expand(particles, -1, -1)]
    for action in paths.actions.to(dtype):
        noise = torch.randn(states[0].shape, generator=generator, dtype=dtype)
        states.append(dynamics(states[-1], action.unsqueeze(0)).sample(noise))
    found = torch.stack(states).double()
    return deviation(model.codec.frozen(torch.float64), paths.states.unsqueeze(1).double().expand_as(found), found)


def _factors(errors: Float[Tensor, "H P W E"], level: float) -> Float[Tensor, "H E"]:
    """Return the factors for particles given as deviations from the truth."""
    mean, (low, high) = errors.mean(1), _interval(errors, level)
    reach = torch.where(mean > 0, mean - low, high - mean).clamp_min(torch.finfo(errors.dtype).tiny)
    wanted = (mean.abs() / reach).sort(1).values
    count = wanted.shape[1]
    return wanted[:, min(math.ceil((count + 1) * level), count) - 1].clamp_min(_LEAST)


def _interval(errors: Float[Tensor, "H P W E"], level: float) -> tuple[Float[Tensor, "H W E"], Float[Tensor, "H W E"]]:
    """Return the ends between which a further exchangeable particle falls with probability `level`: order statistics."""
    ordered, count = errors.sort(1).values, errors.shape[1]

    def quantile(p: float) -> Tensor:
        # A further particle is below the k-th smallest of P with probability k/(P + 1).
        place = min(max(p * (count + 1) - 1, 0.0), count - 1.0)
        below = min(math.floor(place), count - 2)
        return ordered[:, below].lerp(ordered[:, below + 1], place - below)

    return quantile(0.5 * (1 - level)), quantile(0.5 * (1 + level))
