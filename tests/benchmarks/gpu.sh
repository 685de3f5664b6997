#!/bin/bash
# Runs on a card, within 13 minutes: the gpu tests, quickstart twice, the benchmarks, characters.
# Usage: tests/benchmarks/gpu.sh FOLDER    (each part has its own limit and its own files there)
set -u
out=$(mkdir -p "${1:?give a folder for the results}" && cd "$1" && pwd)
cd "$(dirname "$0")/../.."
python=${PYTHON:-python}
export OMP_NUM_THREADS=1 MPLBACKEND=agg

part() {  # NAME SECONDS COMMAND...
  local name=$1 limit=$2 began=$SECONDS
  shift 2
  timeout --kill-after=10 "$limit" "$@" >"$out/$name.txt" 2>&1
  echo "$name: exit code $?, $((SECONDS - began)) s of $limit" | tee -a "$out/summary.txt"
}

run="$python -m transferbench run --device cuda"
nvidia-smi >"$out/nvidia-smi.txt" 2>&1
part doctor 30 $python -m transferbench doctor
part tests 150 $python -m pytest -q -p no:randomly -m gpu tests/test_gpu.py
part quickstart 60 $run quickstart@1 --out "$out/first/run"
part quickstart-again 60 $run quickstart@1 --out "$out/second/run"
cmp "$out/first/run/records.jsonl" "$out/second/run/records.jsonl" >>"$out/summary.txt" 2>&1 &&
  echo "quickstart twice: equal records" >>"$out/summary.txt"
part benchmarks 180 $python tests/benchmarks/gpu.py "$out/benchmarks.json" "$out/benchmarks.md"
part characters 290 $run characters@2 --out "$out/characters/run"
# The stores hold gigabytes of weights: the records stay.
rm -rf "$out"/*/store
