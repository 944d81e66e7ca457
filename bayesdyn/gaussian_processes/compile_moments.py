"""Compiles the optional kernel of moment matching: `python -m bayesdyn.gaussian_processes.compile_moments`, once per machine."""

import os
import subprocess
import tempfile
from pathlib import Path

from bayesdyn.errors import ConfigurationError
from bayesdyn.gaussian_processes.moment_kernel import FLAGS, SOURCES, default_path, installed


def build(path: Path | None = None) -> Path:
    """Compile `moment_gp.cpp` for this processor, into the user's cache unless another path is given, and return where it is.

    The compiler is the system's C++ compiler, GCC or Clang, or what the environment variable CXX names. Raises
    `ConfigurationError` without one that can.
    """
    path = path or default_path()
    path.parent.mkdir(parents=True, exist_ok=True)
    compiler = os.environ.get("CXX", "c++")
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        made = Path(folder) / path.name
        try:
            subprocess.run([compiler, *FLAGS, str(SOURCES[0]), "-o", str(made)], check=True, capture_output=True, text=True)
        except (OSError, subprocess.CalledProcessError) as error:
            said = getattr(error, "stderr", None) or str(error)
            raise ConfigurationError(
                f"the kernel wants a C++17 compiler that knows vector types, GCC or Clang; {compiler!r} said: {said}; "
                "set CXX to another, or go on without: moment matching then uses the operations of NumPy and torch"
            ) from error
        made.replace(path)
    installed.cache_clear()
    return path


if __name__ == "__main__":
    print(build())
