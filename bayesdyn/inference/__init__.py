"""Inference for any log density: the No-U-Turn sampler, its diagnostics, modes and optimisation."""
