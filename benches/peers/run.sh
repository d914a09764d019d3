#!/usr/bin/env bash
# Times the crate against the peers, then writes the tables and plots: `bash benches/peers/run.sh [OPTION...]`.
#
# The options are those of bench.py; without any, everything at 1 and 2 threads: hours. Appends to $PEERS_RESULTS
# (default: benches/peers/results.jsonl) and writes docs/peers/. Needs `bash benches/peers/setup.sh` first, with the
# same PEERS_ROOT.
set -euo pipefail
export PEERS_COMMAND="bash benches/peers/run.sh ${*@Q}"
PEERS_ROOT=$(realpath "${PEERS_ROOT:-$(dirname "$0")/.env}")
results=$(realpath "${PEERS_RESULTS:-$(dirname "$0")/results.jsonl}")
cd "$(dirname "$0")/../.."
export PEERS_ROOT
target=${CARGO_TARGET_DIR:-target}
python=$PEERS_ROOT/venv/bin/python

cargo build --quiet --release --example peer
ours=$target/release/examples/peer
"$python" benches/peers/bench.py --native "ours=$ours" --roof "$ours --roof" --out "$results" "$@"
"$python" benches/peers/report.py "$results" docs/peers
