# make demo and make test set up everything they need, and skip what is already there.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: demo reproduce test test-all test-slurm lint bench wheels setup clean

setup: $(STAMP)

$(STAMP): pyproject.toml requirements.lock
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(0 if (3, 11) <= v <= (3, 13) else "error: Python %d.%d found, 3.11 to 3.13 is needed: make PYTHON=python3.12 ..." % v)'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --constraint requirements.lock --editable '.[dev]'
	touch $(STAMP)

demo: setup
	$(BIN)/python experiments/ablate_schedule.py --T 4,6,8,12,16,32,60 --seeds 0,1,2
	@echo 'This was a part of the grid. All of it: $(BIN)/python experiments/ablate_schedule.py --T 4..60' >&2

# Every table and figure of the paper, coarsely (8 minutes on 2 cores).
reproduce: setup
	$(BIN)/python experiments/reproduce.py --preset embedded --quick

test: setup
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile -m 'not slow and not gpu and not slurm' tests

test-all: setup
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile -m 'not slurm' tests
	$(MAKE) test-slurm

# On real SLURMs of virtual nodes, which the tests start (root and Debian's packages, else skipped).
test-slurm: setup
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile -m slurm tests

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# Short runs of all benchmarks. PEER_PATH=CHECKOUT of google-research/maskgit adds the official code.
bench: setup
	$(BIN)/python benchmarks/sampling.py --quick
	$(BIN)/python benchmarks/training.py --quick
	$(BIN)/python benchmarks/grid.py --quick
	$(BIN)/python benchmarks/metrics.py --kinds frechet,spectrum,white --quick --repeats 1
	$(if $(PEER_PATH),$(BIN)/python benchmarks/peers.py --peer-path $(PEER_PATH))

# What a machine with Python 3.12 and torch but no network may lack (benchmarks/NOTES.md).
wheels: setup
	$(BIN)/python -m pip download --quiet --no-deps --only-binary=:all: --python-version 3.12 \
		--constraint requirements.lock --dest wheels \
		tyro docstring-parser typeguard submitit torch-fidelity clean-fid lpips

clean:
	rm -rf runs reports/out
