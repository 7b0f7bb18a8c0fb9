# Every target does its own set-up. Variables: PYTHON (3.10 to 3.13), DEMO_DIR, PYTEST_ARGS, BENCH_ARGS, MUTANTS, SEED.
PYTHON ?= python3
VENV ?= .venv
DEMO_DIR ?= output/demo
PYTEST_ARGS ?=
BENCH_ARGS ?=
MUTANTS ?= 100
SEED ?= 0
PY := $(VENV)/bin/python

.PHONY: demo test test-all test-slurm test-kernels mutants bench faults lint format clean help

help:
	@echo "make demo    train mnist_mini on real digits, sketch two Hessians, draw their overlap"
	@echo "make test    the tests, without the slow ones"
	@echo "make test-all  the tests, slow ones included"
	@echo "make test-slurm  the tests on a private Slurm cluster; needs slurmctld, slurmd, munge, jq"
	@echo "make test-kernels  the numerical tests with the kernels of other processors, on one and two threads"
	@echo "make mutants  change the code in MUTANTS places, one at a time, and see whether a test notices"
	@echo "make bench   time and memory, without the long cases; writes docs/performance.md"
	@echo "make faults  kill every stage fifty times (docs/reliability.md)"
	@echo "make lint    style, types and shell scripts"

$(VENV)/.run: requirements.txt
	$(PYTHON) -m venv $(VENV)
	$(PY) -m pip install --quiet --disable-pip-version-check --requirement requirements.txt
	@touch $@

$(VENV)/.dev: requirements-dev.txt $(VENV)/.run
	$(PY) -m pip install --quiet --disable-pip-version-check --requirement requirements-dev.txt
	@touch $@

demo: $(VENV)/.run
	PYTHON="$(PY)" ./demo.sh "$(DEMO_DIR)"

test: $(VENV)/.dev
	$(PY) -m pytest -n 2 -m "not slow and not slurm" $(PYTEST_ARGS)

test-all: $(VENV)/.dev
	$(PY) -m pytest -n 2 $(PYTEST_ARGS)

test-slurm: $(VENV)/.dev
	$(PY) -m pytest -n 2 -m slurm $(PYTEST_ARGS)

# What holds with these holds on any processor: the plainest kernels (of MKL, too), those of most
# laptops, and sums that are split over threads. The best kernels of this machine on one thread are those of "test".
NUMERICAL := -q -m "numerical and not slow" tests/skerch tests/applesandoranges $(PYTEST_ARGS)
test-kernels: $(VENV)/.dev
	OMP_NUM_THREADS=1 ATEN_CPU_CAPABILITY=default MKL_CBWR=COMPATIBLE $(PY) -m pytest -n 2 $(NUMERICAL)
	OMP_NUM_THREADS=1 ATEN_CPU_CAPABILITY=avx2 $(PY) -m pytest -n 2 $(NUMERICAL)
	OMP_NUM_THREADS=2 $(PY) -m pytest $(NUMERICAL)

mutants: $(VENV)/.dev
	$(PY) -m tests.mutation --mutants $(MUTANTS) --seed $(SEED)

bench: $(VENV)/.run
	$(PY) -m benchmarks $(BENCH_ARGS)
	$(PY) -m benchmarks.report

faults: $(VENV)/.dev
	OMP_NUM_THREADS=1 $(PY) -m tests.faults.kill --repeats 50

lint: $(VENV)/.dev
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(PY) -m mypy
	git ls-files -z '*.sh' '*.slurm' '.ci/run' | xargs -0 $(VENV)/bin/shellcheck

format: $(VENV)/.dev
	$(VENV)/bin/ruff check --fix .
	$(VENV)/bin/ruff format .

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache
