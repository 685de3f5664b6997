#!/bin/bash
# Runs on a card, within 13 minutes: quickstart twice, the gpu tests, the benchmarks, characters.
# Usage: tests/benchmarks/gpu.sh FOLDER [PART ...]    (without parts, all of them)
# Parts: doctor quickstart tests benchmarks characters cpu. Each has its own limit and its own files
# in FOLDER, written as it goes: what is cut off there leaves what it had. Where a command may take
# ten minutes, run characters and cpu in a second one.
# DEVICE, SCALE, QUICKSTART and CHARACTERS (a suite and options) make a trial run without a card:
#   DEVICE=cpu SCALE=tiny QUICKSTART=small.yaml CHARACTERS=small.yaml tests/benchmarks/gpu.sh /tmp/out
set -u
out=$(mkdir -p "${1:?give a folder for the results}" && cd "$1" && pwd)
shift
parts=" ${*:-doctor quickstart tests benchmarks characters cpu} "
device=${DEVICE:-cuda}
read -ra quickstart <<<"${QUICKSTART:-quickstart@1}"
read -ra characters <<<"${CHARACTERS:-characters@2}"
read -ra python <<<"${PYTHON:-python}"
cd "$(dirname "$0")/../.." || exit 2
export OMP_NUM_THREADS=1 MPLBACKEND=agg PYTHONPATH="$PWD:$PWD/tests${PYTHONPATH:+:$PYTHONPATH}"

say() { echo "$*" | tee -a "$out/summary.txt"; }

part() {  # NAME SECONDS COMMAND...
  local name=$1 limit=$2 began=$SECONDS
  shift 2
  timeout --kill-after=10 "$limit" "$@" >"$out/$name.txt" 2>&1
  say "$name: exit code $?, $((SECONDS - began)) s of $limit"
}

suite() {  # NAME SECONDS DEVICE SUITE [OPTION ...]
  local name=$1 limit=$2 on=$3
  shift 3
  part "$name" "$limit" "${python[@]}" -m transferbench run "$@" --device "$on" --out "$out/$name/run"
  rm -rf "$out/$name/store"  # gigabytes of weights: the records stay
}

chosen() { [[ $parts == *" $1 "* ]]; }

say "$(date -u +%FT%TZ) on $device:$parts"
nvidia-smi >"$out/nvidia-smi.txt" 2>&1
if chosen doctor; then
  part doctor 20 "${python[@]}" -m transferbench doctor
fi
if chosen quickstart; then
  suite first 40 "$device" "${quickstart[@]}"
  suite second 40 "$device" "${quickstart[@]}"
  if cmp "$out/first/run/records.jsonl" "$out/second/run/records.jsonl" >>"$out/summary.txt" 2>&1; then
    say "quickstart twice: equal records"
  else
    say "quickstart twice: OTHER RECORDS"
  fi
fi
if chosen tests; then
  part tests 130 "${python[@]}" -m pytest -q -p no:randomly -m gpu --durations=5 tests/test_gpu.py
fi
if chosen benchmarks; then
  part benchmarks 210 "${python[@]}" tests/benchmarks/gpu.py "$out" "${SCALE:-card}"
  rm -rf "$out/compiled" "$out/images.npy"
fi
if chosen characters; then
  suite characters 290 "$device" "${characters[@]}"
fi
if chosen cpu; then
  suite on-cpu 40 cpu "${quickstart[@]}"
  part compared 10 "${python[@]}" -m transferbench compare "$out/on-cpu/run" "$out/first/run"
fi
say "end"
