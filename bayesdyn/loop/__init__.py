"""The loop of model-based reinforcement learning: collect, fit, plan, act, aggregate, repeat."""

from bayesdyn.loop.learn import Agent, learn
from bayesdyn.loop.monitor import Monitor, RichMonitor
from bayesdyn.loop.run import Run
from bayesdyn.loop.trial import Trial

__all__ = ["Agent", "Monitor", "RichMonitor", "Run", "Trial", "learn"]
