"""Exact nearest neighbours for the metrics on balls: precision, recall, density, coverage.

This is own code because it was measured: on 10,000 and 50,000 features of 2048 numbers it takes a
fraction of torch-fidelity's time on a CPU (docs/performance.md; `python benchmarks/metrics.py`),
and it is exact where a library's float32 averages are not. torch-fidelity, scikit-learn and the
definition stay as oracles in the tests and in `python -m eval.agreement`.

- search.py: what is asked (radii, balls), on a CPU, without most of the arithmetic.
- codes.py and projection.py: the bounds in whole numbers and in float32 that spare it.
- dense.py: the same answers from all pairs on a GPU.
"""
