"""The loop of model-based reinforcement learning: collect, fit, plan, act, aggregate, repeat."""

from bayesdyn.agents import Agent
from bayesdyn.loop.actions import Actions, actions_of
from bayesdyn.loop.controllers import Given, OrnsteinUhlenbeck, ProportionalDerivative
from bayesdyn.loop.exploration import Coloured, Exploration, Uniform
from bayesdyn.loop.learn import learn
from bayesdyn.loop.monitor import Monitor, Monitors, RichMonitor
from bayesdyn.loop.run import Fit, Run
from bayesdyn.loop.student import Student
from bayesdyn.loop.tensorboard import TensorBoardMonitor
from bayesdyn.loop.trial import Trial

__all__ = [
    "Actions",
    "Agent",
    "Coloured",
    "Exploration",
    "Fit",
    "Given",
    "Monitor",
    "Monitors",
    "OrnsteinUhlenbeck",
    "ProportionalDerivative",
    "RichMonitor",
    "Run",
    "Student",
    "TensorBoardMonitor",
    "Trial",
    "Uniform",
    "actions_of",
    "learn",
]
