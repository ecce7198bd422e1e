#!/bin/sh
# Measures what README shows, into the tracked results.db: the suites of this folder. It goes on
# where an earlier call was interrupted.
set -eu
cd "$(dirname "$0")/.."
: "${PYTHON:=python3}"
export FLOWBENCH_DB=results.db FLOWBENCH_RUNS=runs
for suite in table1 digits coupling toy2d; do
    "$PYTHON" -m flowbench run --suite "benchmarks/$suite.toml"
    "$PYTHON" -m flowbench compare --suite "benchmarks/$suite.toml" --format md
done
"$PYTHON" -m flowbench compare --suite benchmarks/table1.toml --figure benchmarks/table1.png
"$PYTHON" -m flowbench chart quality --dataset digits --metric fd-clf -o benchmarks/digits-quality.png
"$PYTHON" benchmarks/readme.py
