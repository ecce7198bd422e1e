# Two commands: `make demo` shows the main job on real data, `make test` runs every check.
# Both set up .venv first, where it is missing or older than pyproject.toml.

PYTHON ?= python3
WORKERS ?= 2
# A process for each core: two that share the cores' threads would wait for each other.
PYTEST = OMP_NUM_THREADS=1 .venv/bin/python -m pytest -n $(WORKERS) --dist worksteal
BENCH = FLOWBENCH_DB=demo/results.db .venv/bin/python -m flowbench

.PHONY: demo test long quick smoke speed leaderboard readme clean

demo: .venv/installed
	mkdir -p demo
	$(BENCH) run edm --dataset digits
	$(BENCH) run cfm --dataset digits
	$(BENCH) run lmm --dataset digits
	$(BENCH) compare --dataset digits --nfe 1,2 --sheet demo/samples.png
	$(BENCH) report --dataset digits

test: .venv/installed
	sh tests/setup.sh
	.venv/bin/python -m ruff check .
	.venv/bin/python -m ruff format --check .
	.venv/bin/python -m mypy
	$(PYTEST) -m "not long"

# What takes minutes each, and proves more of what `make test` proves.
long: .venv/installed
	$(PYTEST) -m long

quick: .venv/installed
	$(PYTEST) -m "not slow and not long"

# Every method on one tiny set, through the suite that `benchmarks/smoke.toml` describes.
smoke: .venv/installed
	rm -rf smoke
	mkdir smoke
	.venv/bin/python -m flowbench run --suite benchmarks/smoke.toml --db smoke/results.db
	.venv/bin/python -m flowbench compare --suite benchmarks/smoke.toml --db smoke/results.db --strict

# Ourselves against what people use instead, in minutes on two quiet cores: no test asserts it.
speed: .venv/installed
	.venv/bin/python -m pip install --quiet --group speed
	.venv/bin/python -m benchmarks.speed -o benchmarks/speed

# The deliberate command that changes the tracked results.db.
leaderboard: .venv/installed
	PYTHON=.venv/bin/python sh benchmarks/leaderboard.sh

# The tables of README.md, from results.db.
readme: .venv/installed
	.venv/bin/python benchmarks/readme.py

.venv/installed: pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit("flowbench needs Python 3.11 or newer" if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv .venv
	.venv/bin/python -m pip install --quiet --upgrade pip
	.venv/bin/python -m pip install --quiet --editable . --group dev
	touch .venv/installed

clean:
	rm -rf .venv demo smoke build *.egg-info
