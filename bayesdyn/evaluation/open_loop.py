"""k-step open loop: logged actions replayed from many logged states at once, and scores of the particles by horizon."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from jaxtyping import Float
from torch import Tensor

from bayesdyn.codec import BaseCodec
from bayesdyn.data import Transitions
from bayesdyn.errors import ConfigurationError, DataError
from bayesdyn.evaluation.metrics import coverage
from bayesdyn.evaluation.samples import energy_score, fair_crps, rank_pit, spread_skill
from bayesdyn.rollout import Propagation, SampledDynamics, TSInf, rollout

_NUMBERS_AT_ONCE = 2**22
_DIVERGED = 10.0
HORIZONS = (1, 2, 5, 10, 20, 50)


@dataclass(frozen=True)
class OpenLoop:
    """How the open loop is run: horizons h in steps, start states, particles (one draw of θ and one noise path each), propagations.

    Particles are computed in `dtype`: what rounding in float32 changes is far below what so few particles leave open.

    Raises `ConfigurationError` for numbers without a meaning.

    >>> OpenLoop(horizons=(1, 10)).propagations
    {'TSInf': TSInf()}
    """

    horizons: tuple[int, ...] = HORIZONS
    starts: int = 200
    particles: int = 100
    propagations: Mapping[str, Propagation] = field(default_factory=lambda: {"TSInf": TSInf()})
    dtype: torch.dtype = torch.float32

    def __post_init__(self) -> None:
        if not self.horizons or min(self.horizons) < 1 or self.starts < 1 or self.particles < 2:
            raise ConfigurationError(f"the open loop wants horizons >= 1, starts >= 1 and particles >= 2; got {self}")

    @property
    def spreading(self) -> "OpenLoop":
        """The same without what moves by the mean alone, which a posterior that is scaled about its mean leaves as it was.

        >>> from bayesdyn.rollout import Mean
        >>> OpenLoop(propagations={"TSInf": TSInf(), "Mean": Mean()}).spreading.propagations
        {'TSInf': TSInf()}
        """
        return replace(self, propagations={name: each for name, each in self.propagations.items() if each.spreads})


@dataclass(frozen=True)
class Windows:
    """W logged stretches of H steps, time first: `actions[t]` leads from `states[t]` to `states[t + 1]`."""

    states: Float[Tensor, "times W S"]  # times = H + 1
    actions: Float[Tensor, "H W A"]

    @property
    def horizon(self) -> int:
        """Steps per stretch."""
        return self.actions.shape[0]


def windows(transitions: Transitions, horizon: int, count: int) -> Windows:
    """Return at most `count` stretches of `horizon` steps, evenly spaced in each episode and shared among episodes by their length.

    Raises `DataError` if no episode is long enough.

    >>> data = Transitions.from_arrays([[0.0], [1.0], [2.0]], [[1.0]] * 3, [[1.0], [2.0], [3.0]])
    >>> windows(data, horizon=2, count=10).states[..., 0].tolist()
    [[0.0, 1.0], [1.0, 2.0], [2.0, 3.0]]
    """
    episodes = [e for e in transitions.episodes() if len(e) >= horizon]
    if not episodes:
        longest = max(len(e) for e in transitions.episodes())
        raise DataError(f"open loop over {horizon} steps wants episodes as long; the longest has {longest}: lower the horizons")
    possible = torch.tensor([len(e) - horizon + 1 for e in episodes])
    # Places on one line of all possible starts: even spacing shares them out by length.
    total = int(possible.sum())
    chosen = torch.linspace(0, total - 1, min(count, total), dtype=torch.float64).round().long()
    first = possible.cumsum(0) - possible
    states, actions = [], []
    for episode, begin, size in zip(episodes, first.tolist(), possible.tolist(), strict=True):
        starts = chosen[(chosen >= begin) & (chosen < begin + size)] - begin
        if len(starts):
            rows = starts + torch.arange(horizon + 1).unsqueeze(1)
            states.append(episode.states[rows])
            actions.append(episode.actions[rows[:-1]])
    return Windows(torch.cat(states, 1), torch.cat(actions, 1))


def deviation(codec: BaseCodec, truth: Float[Tensor, "*batch S"], states: Float[Tensor, "*batch S"]) -> Float[Tensor, "*batch E"]:
    """Return states - truth in the coordinates that the codec predicts, physical units, with its angles wrapped to (-π, π]."""
    # A codec's target is a change or the new value itself; what the truth would score is taken off, so both are differences.
    return codec.raw_target(truth, states) - codec.raw_target(truth, truth)


def replay(
    dynamics: SampledDynamics,
    windows: Windows,
    codec: BaseCodec,
    *,
    propagation: Propagation | None = None,
    particles: int = 1,
    dtype: torch.dtype = torch.float64,
    generator: torch.Generator | None = None,
) -> Float[Tensor, "times n p W E"]:
    """Return how far each particle is from what was logged, [H + 1, n, p, W, E], when the logged actions are replayed.

    Every window meets the same draws of θ and the same noise, so horizons and models can be compared on common random numbers.
    `dtype` is that of the dynamics. Windows are run in portions, so that memory stays bounded.
    """
    propagation = propagation or TSInf()
    size = windows.states.shape[-1]
    noise = propagation.draw_noise(windows.horizon, dynamics.n, particles, size, generator, dtype)
    portion = max(_NUMBERS_AT_ONCE // (dynamics.n * particles * size * (windows.horizon + 1)), 1)
    exact = codec.frozen(torch.float64)
    parts = []
    for states, actions in zip(windows.states.split(portion, 1), windows.actions.split(portion, 1), strict=True):
        imagined = rollout(
            dynamics, states[0].to(dtype), actions.to(dtype), _no_reward, particles=particles, propagation=propagation, noise=noise
        ).states.double()
        parts.append(deviation(exact, states[:, None, None].double().expand_as(imagined), imagined))
    return torch.cat(parts, 3)


def _no_reward(state: Tensor, action: Tensor, next_state: Tensor) -> Tensor:
    return torch.zeros_like(next_state[..., 0])


@dataclass(frozen=True)
class Scale:
    """Sizes of the predicted coordinates, physical units [E]: of the test states, of the training states, of the targets."""

    test_std: Float[Tensor, "E"]
    train_mean: Float[Tensor, "E"]
    train_std: Float[Tensor, "E"]
    target_std: Float[Tensor, "E"]

    @classmethod
    def of(cls, codec: BaseCodec, train: Transitions, test: Transitions) -> "Scale":
        """Return the scale of the next states of both data sets; the codec is one fitted on the training data."""
        before, now = train.next_state[:, codec.outputs], test.next_state[:, codec.outputs]
        return cls(now.std(0, correction=0), before.mean(0), before.std(0, correction=0), codec.target_std)


def score_horizon(
    particles: Float[Tensor, "P W E"],
    truth: Float[Tensor, "W E"],
    scale: Scale,
    generator: torch.Generator | None = None,
    levels: Sequence[float] = (0.5, 0.9),
) -> dict[str, Float[Tensor, "*outputs"]]:
    """Score P exchangeable particles, given as deviations from the truth [P, W, E], at one horizon after W starts.

    Per output [E]: `rmse` of the particle mean and `spread` (root mean variance), both physical; `state_nrmse`, the RMSE over the
    std of the test states (1 is as bad as predicting their mean); fair `crps` in target units; `coverageNN`; `spread_skill`. Over
    all outputs: fair `energy_score` in units of the test std, and `divergence`, the share of particles further than 10 training
    std from the training mean (what `truth`, physical [W, E], is for) or not finite. One particle gets what needs no spread.
    """
    generator = generator or torch.Generator(particles.device).manual_seed(0)
    zero = torch.zeros_like(truth)
    error = particles.mean(0).square().mean(0).sqrt()
    away = ((particles + truth - scale.train_mean) / scale.train_std).abs()
    diverged = (~(away <= _DIVERGED)).any(-1).to(truth.dtype).mean()
    scores = {"rmse": error, "state_nrmse": error / scale.test_std, "divergence": diverged}
    if len(particles) == 1:
        return scores
    u = rank_pit(particles, zero, generator)
    return {
        **scores,
        "crps": fair_crps(particles, zero).mean(0) / scale.target_std,
        **{f"coverage{round(100 * level)}": coverage(u, level) for level in levels},
        "spread": particles.var(0).mean(0).sqrt(),
        "spread_skill": spread_skill(particles, zero),
        "energy_score": energy_score(particles / scale.test_std, zero).mean(),
    }
