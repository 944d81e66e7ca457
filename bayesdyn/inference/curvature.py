"""What quasi-Newton steps learn of the inverse Hessian: the dense BFGS matrix, or the last hundred pairs of L-BFGS."""

from abc import ABC, abstractmethod
from collections import deque

import numpy as np

_MEMORY = 100


class Curvature(ABC):
    """What past steps and changes of the gradient say about the inverse Hessian."""

    @abstractmethod
    def direction(self, gradient: np.ndarray) -> np.ndarray:
        """Return -H g; H is the identity as long as nothing is known."""

    @abstractmethod
    def learn(self, step: np.ndarray, change: np.ndarray) -> None:
        """Take in one step and the change of the gradient along it, unless they show no positive curvature."""

    @abstractmethod
    def forget(self) -> None:
        """Go back to knowing nothing."""


def _scaled_pair(step: np.ndarray, change: np.ndarray) -> tuple[np.ndarray, np.ndarray, float] | None:
    """Return step, change and their product in units of the step, so that tiny ones do not underflow; None without curvature."""
    size = np.abs(step).max(initial=0.0)
    if not size > 0:
        return None
    step, change = step / size, change / size
    product = float(step @ change)
    curved = product > np.finfo(float).eps * float(np.linalg.norm(step) * np.linalg.norm(change))
    return (step, change, product) if curved else None


class DenseCurvature(Curvature):
    """The inverse Hessian as a matrix, H <- (I - syᵀ/sᵀy) H (I - ysᵀ/sᵀy) + ssᵀ/sᵀy (Nocedal & Wright 2006, eq. 6.17)."""

    def __init__(self) -> None:
        self.inverse: np.ndarray | None = None

    def direction(self, gradient: np.ndarray) -> np.ndarray:
        """Return -H g."""
        return -gradient if self.inverse is None else -self.inverse @ gradient

    def learn(self, step: np.ndarray, change: np.ndarray) -> None:
        """Update the matrix, which starts at the scale of the first pair."""
        pair = _scaled_pair(step, change)
        if pair is None:
            return
        step, change, product = pair
        if self.inverse is None:
            self.inverse = np.eye(step.size) * (product / (change @ change))
        # H + (1 + yᵀHy/sᵀy) ssᵀ/sᵀy - (s(Hy)ᵀ + (Hy)sᵀ)/sᵀy, as one symmetric product.
        turned = self.inverse @ change
        half = 0.5 * (1 + change @ turned / product) / product * step - turned / product
        outer = np.outer(step, half)
        self.inverse += outer
        self.inverse += outer.T

    def forget(self) -> None:
        """Go back to the identity."""
        self.inverse = None


class LimitedCurvature(Curvature):
    """The last hundred pairs, applied by the two-loop recursion (Nocedal & Wright 2006, algorithm 7.4)."""

    def __init__(self) -> None:
        self.pairs: deque[tuple[np.ndarray, np.ndarray, float]] = deque(maxlen=_MEMORY)

    def direction(self, gradient: np.ndarray) -> np.ndarray:
        """Return -H g, H starting at the scale of the last pair."""
        result, shares = -gradient, []
        for step, change, product in reversed(self.pairs):
            shares.append(step @ result / product)
            result = result - shares[-1] * change
        if self.pairs:
            _, change, product = self.pairs[-1]
            result = result * (product / (change @ change))
        for (step, change, product), share in zip(self.pairs, reversed(shares), strict=True):
            result = result + (share - change @ result / product) * step
        return result

    def learn(self, step: np.ndarray, change: np.ndarray) -> None:
        """Keep the pair; the oldest goes."""
        pair = _scaled_pair(step, change)
        if pair is not None:
            self.pairs.append(pair)

    def forget(self) -> None:
        """Drop all pairs."""
        self.pairs.clear()
