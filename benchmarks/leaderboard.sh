#!/bin/sh
# Measures the leaderboard that README shows, into the tracked results.db: three seeds on digits
# and on mog128. It goes on where an earlier call was interrupted. It took 35 minutes on two
# cores that other work shared.
set -eu
cd "$(dirname "$0")/.."
: "${PYTHON:=python3}"
export FLOWBENCH_DB=results.db FLOWBENCH_RUNS=runs
for dataset in digits mog128; do
    for method in edm cfm lmm; do
        "$PYTHON" -m flowbench run "$method" --dataset "$dataset" --seed 0,1,2 --nfe 1,2,4,8,35
    done
done
"$PYTHON" -m flowbench compare --nfe 1,2
"$PYTHON" -m flowbench report --format md
