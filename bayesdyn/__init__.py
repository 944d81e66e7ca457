"""bayesdyn: learned dynamics that know how sure they are, and planners that act on it."""

from bayesdyn import errors
from bayesdyn.distributions import Gaussian, Predictive

__all__ = ["Gaussian", "Predictive", "errors"]
