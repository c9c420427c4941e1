#!/usr/bin/env bash
# First figures for W1, W2, W4 and W6 (docs/benchmarks.md), on this machine: one broker core, the load on another, each figure beside
# the machine's own limit taken in the same minutes (fio for the disk, a plain send for loopback).
#
#   bench/first-figures.sh [DIRECTORY]     the directory's filesystem is measured (default: target/first-figures)
#   SECONDS_EACH=10                        how long each measurement takes
#   BROKER_CPU=0 LOAD_CPU=1                the cores
#   BIN_DIR=target/release                 programs that are built already (else cargo builds them)
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
each=${SECONDS_EACH:-10}
broker_cpu=${BROKER_CPU:-0}
load_cpu=${LOAD_CPU:-1}
work=${1:-$root/target/first-figures}
if [ -z "${BIN_DIR:-}" ]; then
  cargo build --release --manifest-path "$root/Cargo.toml" --package server --package bench --bins
  BIN_DIR=$root/target/release
fi
command -v fio >/dev/null || { echo "fio is missing (Debian: fio)" >&2; exit 1; }
mkdir -p "$work"
work=$(cd "$work" && pwd)
data=$work/data
port=${PORT:-19092}
broker=

stop() {
  if [ -n "$broker" ]; then
    kill "$broker" 2>/dev/null || true
    wait "$broker" 2>/dev/null || true
    broker=
  fi
}
clean() {
  stop
  rm -rf "$data" "$work/fio.dat"
}
trap clean EXIT

# A broker on fresh data, on one core.
start() {
  clean
  mkdir -p "$data"
  taskset -c "$broker_cpu" "$BIN_DIR/thalweg" --data-dir "$data" --listen "127.0.0.1:$port" --cores 1 >"$work/broker.log" 2>&1 &
  broker=$!
  for _ in $(seq 300); do
    grep -q '^ready' "$work/broker.log" && return
    kill -0 "$broker" 2>/dev/null || { cat "$work/broker.log" >&2; exit 1; }
    sleep 0.1
  done
  echo "the broker is not ready after 30 s" >&2
  exit 1
}

bench() { "$BIN_DIR/thalweg-bench" "$@" --json; }
produce() { bench produce --broker "127.0.0.1:$port" --cpu "$load_cpu" --broker-pid "$broker" --seconds "${produce_seconds:-$each}" "$@"; }
# One field of a JSON object on standard input: get EXPRESSION, where `j` is the object.
get() { python3 -c "import json, sys; j = json.load(sys.stdin); print($1)"; }
row() { printf '| %s | %s | %s | %s |\n' "$@"; }

# MB/s of O_DIRECT writes of 1 MiB onto a fresh fallocated file, four in flight, an fdatasync after each four.
fio_sequential() {
  rm -f "$work/fio.dat"
  fio --name=w1 --filename="$work/fio.dat" --size=8G --rw=write --bs=1M --direct=1 --ioengine=io_uring --iodepth=4 --fallocate=posix \
    --fdatasync=4 --runtime="$each" --time_based=0 --cpus_allowed="$broker_cpu" --output-format=json |
    get "round(j['jobs'][0]['write']['bw_bytes'] / 1e6)"
  rm -f "$work/fio.dat"
}
# Median microseconds of a 4 KiB write and its fdatasync onto written blocks.
fio_small() {
  rm -f "$work/fio.dat"
  fio --name=fill --filename="$work/fio.dat" --size=256M --rw=write --bs=1M --direct=1 --end_fsync=1 --output-format=json >/dev/null
  fio --name=w2 --filename="$work/fio.dat" --size=256M --rw=write --bs=4k --direct=1 --ioengine=io_uring --iodepth=1 --overwrite=1 \
    --fdatasync=1 --runtime="$each" --time_based=1 --cpus_allowed="$broker_cpu" --output-format=json |
    get "round((j['jobs'][0]['write']['clat_ns']['percentile']['50.000000'] + j['jobs'][0]['sync']['lat_ns']['percentile']['50.000000']) / 1e3)"
  rm -f "$work/fio.dat"
}

commit=$(git -C "$root" rev-parse --short HEAD 2>/dev/null || echo unknown)
echo "commit $commit, kernel $(uname -r), $(nproc) cores, $(stat -f -c %T "$work"), broker on core $broker_cpu, load on core $load_cpu, ${each} s each"
echo
row workload Thalweg "the machine's own limit" "broker CPU"
row --- --- --- ---

# W1: three pairs, each figure beside its own limit.
for pair in 1 2 3; do
  limit=$(fio_sequential)
  start
  json=$(produce --topic w1 --partitions 8 --record-bytes 1024 --records 1000 --in-flight 4)
  row "W1 produce, 1,000 x 1 KiB a request, 8 partitions, acks=all ($pair)" "$(get "f\"{j['mb_per_second']:.0f} MB/s\"" <<<"$json")" \
    "$limit MB/s (fio)" "$(get "f\"{j['broker_cpu_seconds_per_gb']:.2f} s/GB, {j['broker_cores_used']:.0%} of the core\"" <<<"$json")"
done

# W2: one small record a request.
limit=$(fio_small)
for depth in 1 64 512; do
  start
  json=$(produce --topic w2 --partitions 8 --record-bytes 100 --records 1 --in-flight "$depth")
  beside=-
  [ "$depth" = 1 ] && beside="p50 $limit us (fio, 4 KiB + fdatasync)"
  row "W2 produce, one 100 B record a request, $depth in flight, acks=all" \
    "$(get "f\"{j['requests_per_second']:.0f} acks/s, p50 {j['latency_us']['p50']} us, p99 {j['latency_us']['p99']} us\"" <<<"$json")" \
    "$beside" "$(get "f\"{j['broker_cpu_us_per_request']:.1f} us an ack\"" <<<"$json")"
done

# W4: one producer, tailing consumers.
for readers in 1 4 16; do
  limit=$(bench plain-send --seconds "$each" --cpu "$broker_cpu" --receiver-cpu "$load_cpu" --receivers "$readers" | get "f\"{j['mb_per_second']:.0f}\"")
  start
  produce_seconds=1 produce --topic w4 --partitions 8 --records 1000 >/dev/null
  produce_seconds=$((each + 4)) produce --topic w4 --partitions 8 --records 1000 --in-flight 2 >"$work/w4.json" &
  producer=$!
  sleep 1
  json=$(bench consume --broker "127.0.0.1:$port" --topic w4 --clients "$readers" --cpu "$load_cpu" --broker-pid "$broker" --seconds "$each")
  wait "$producer"
  row "W4 one producer, $readers tailing" "$(get "f\"{j['mb_per_second']:.0f} MB/s out\"" <<<"$json")" "$limit MB/s (plain send)" \
    "$(get "f\"{j['broker_cpu_seconds_per_gb']:.2f} s/GB out\"" <<<"$json")"
done

# W6: W1's bytes over more partitions.
eight=
for partitions in 8 1 100 1000 5000; do
  start
  json=$(produce --topic w6 --partitions "$partitions" --record-bytes 1024 --records 1000 --in-flight 4)
  rate=$(get "round(j['mb_per_second'])" <<<"$json")
  [ "$partitions" = 8 ] && eight=$rate
  row "W6 W1 over $partitions partitions" "$rate MB/s" "$((rate * 100 / (eight > 0 ? eight : 1)))% of 8 partitions" \
    "$(get "f\"{j['broker_cpu_seconds_per_gb']:.2f} s/GB\"" <<<"$json")"
done
