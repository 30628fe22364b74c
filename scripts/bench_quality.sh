#!/usr/bin/env bash
# Quality on public data sets: bench_quality.sh LAMPLIGHTER DATA [BUDGET]. DATA holds gowalla/, ml-1m/ and
# beauty/ (train.parquet, test.parquet; beauty also valid.parquet and items.parquet) and online-retail/. What
# is not there is left out, and said. With a BUDGET (30m), keys are searched for that long first.
set -euo pipefail
lamplighter=$1
data=$(cd "$2" && pwd)
budget=${3:-}
cd "$(dirname "$0")/.."

evaluate() {
    local name=$1 events=$2 job=$3
    shift 3
    if [[ ! -e $events ]]; then
        echo "$name: left out, there is no $events"
        return
    fi
    printf '\n== %s\n' "$name"
    "$lamplighter" --quiet evaluate "$job" "$@" | grep -v '^$'
    if [[ -n $budget ]]; then
        printf '\n== %s, tuned\n' "$name"
        rm -rf "out/bench/$name-tuning"
        "$lamplighter" --quiet tune "$job" --budget "$budget" "$@" --set "output='../../out/bench/$name-tuning'"
        local tuned="out/bench/$name-tuning/tuning/tuned.toml"
        [[ ! -e $tuned ]] || "$lamplighter" --quiet evaluate "$job" "$@" --with "$tuned" | grep -v '^$'
    fi
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
retail=(--set "inputs.events.path='$data/online-retail/online_retail.parquet'" --set "evaluation.ks=[20]")
evaluate online-retail "$data/online-retail/online_retail.parquet" jobs/bench/online-retail.toml "${retail[@]}"
evaluate "online-retail-new" "$data/online-retail/online_retail.parquet" jobs/bench/online-retail.toml \
    "${retail[@]}" --set ranking.exclude_seen=true --set output=../../out/bench/online-retail-new
