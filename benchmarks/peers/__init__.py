"""The same computations in other libraries: what the speed benchmarks are timed against."""
