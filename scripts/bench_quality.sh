#!/usr/bin/env bash
# Quality on public data sets: bench_quality.sh LAMPLIGHTER DATA. DATA holds gowalla/, ml-1m/ and beauty/
# (train.parquet, test.parquet; beauty also valid.parquet and items.parquet) and online-retail/. What is
# not there is left out, and said.
set -euo pipefail
lamplighter=$1
data=$(cd "$2" && pwd)
cd "$(dirname "$0")/.."

evaluate() {
    local name=$1 events=$2
    shift 2
    if [[ ! -e $events ]]; then
        echo "$name: left out, there is no $events"
        return
    fi
    printf '\n== %s\n' "$name"
    "$lamplighter" --quiet evaluate "$@" | grep -v '^$'
}

for name in ml-1m gowalla; do
    evaluate "$name" "$data/$name/train.parquet" "jobs/bench/$name.toml" \
        --set "inputs.events.path='$data/$name/train.parquet'" \
        --set "evaluation.test='$data/$name/test.parquet'"
done
evaluate beauty "$data/beauty/train.parquet" jobs/bench/beauty.toml \
    --set "inputs.events.path=['$data/beauty/train.parquet','$data/beauty/valid.parquet']" \
    --set "inputs.items.path='$data/beauty/items.parquet'" \
    --set "evaluation.test='$data/beauty/test.parquet'"
evaluate online-retail "$data/online-retail/online_retail.parquet" jobs/online-retail.toml \
    --set "inputs.events.path='$data/online-retail/online_retail.parquet'" --set "evaluation.ks=[20]"
