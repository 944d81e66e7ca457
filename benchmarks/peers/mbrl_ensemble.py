"""Training of a bootstrap ensemble of probabilistic networks with mbrl-lib's `ModelTrainer`."""

from dataclasses import dataclass, field

import mbrl.models
import mbrl.util.common
import numpy as np
from mbrl.util.replay_buffer import ReplayBuffer
from torch import Tensor

# mbrl-lib names activations by their class.
_ACTIVATIONS = {"relu": "torch.nn.ReLU", "silu": "torch.nn.SiLU"}


@dataclass(frozen=True)
class PeerEnsemble:
    """An ensemble of `members` networks over x [N, D] and y [N, E].

    States are the first E features, actions the others, targets the deltas. Bootstrap samples, batches and their order are those of
    the library's own replay buffer and iterators.
    """

    x: Tensor
    y: Tensor
    members: int
    width: int
    layers: int
    activation: str
    batch_size: int
    learning_rate: float
    buffer: ReplayBuffer = field(init=False)

    def __post_init__(self) -> None:
        rows, outputs = self.y.shape
        state, action = self.x[:, :outputs].numpy(), self.x[:, outputs:].numpy()
        buffer = ReplayBuffer(rows, (outputs,), (action.shape[1],), rng=np.random.default_rng(0))
        nothing = np.zeros(rows, dtype=bool)
        buffer.add_batch(state, action, state + self.y.numpy(), np.zeros(rows), nothing, nothing)
        object.__setattr__(self, "buffer", buffer)

    def train(self, epochs: int, score: bool) -> list[float]:
        """Train a fresh ensemble and return its loss per epoch; with `score`, keep the best by a score on the training rows."""
        network = mbrl.models.GaussianMLP(
            self.x.shape[1],
            self.y.shape[1],
            "cpu",
            num_layers=self.layers,
            ensemble_size=self.members,
            hid_size=self.width,
            activation_fn_cfg={"_target_": _ACTIVATIONS[self.activation]},
        )
        model = mbrl.models.OneDTransitionRewardModel(network, target_is_delta=True, normalize=False, learned_rewards=False)
        batches, _ = mbrl.util.common.get_basic_buffer_iterators(self.buffer, self.batch_size, 0.0, self.members)
        trainer = mbrl.models.ModelTrainer(model, optim_lr=self.learning_rate)
        losses, _ = trainer.train(batches, num_epochs=epochs, evaluate=score, silent=True)
        return losses
