"""Random numbers without torch's global state."""

import torch


def fresh_generator(device: torch.device | str = "cpu") -> torch.Generator:
    """Return a generator seeded by the system, for calls that are given none: torch's global random state stays as it is.

    >>> fresh_generator().initial_seed() != fresh_generator().initial_seed()
    True
    """
    generator = torch.Generator(device)
    generator.seed()
    return generator


def private_generator(generator: torch.Generator | None) -> torch.Generator:
    """Return a generator for one piece of work, seeded by one number of `generator`, or by the system without one.

    So the caller's generator moves by one number, however many the work took (which, for a plan, another environment of the batch
    may have caused), and torch's global random state stays as it is.

    >>> private_generator(torch.Generator().manual_seed(0)).initial_seed() == private_generator(None).initial_seed()
    False
    """
    if generator is None:
        return fresh_generator()
    seed = torch.randint(2**63 - 1, (), generator=generator, device=generator.device)
    return torch.Generator(generator.device).manual_seed(int(seed))
