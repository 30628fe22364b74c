#!/usr/bin/env bash
# Quality on public data sets: bench_quality.sh LAMPLIGHTER DATA [BUDGET]. DATA holds gowalla/, ml-1m/ and
# beauty/ (train.parquet, test.parquet; beauty also valid.parquet and items.parquet) and online-retail/. What
# is not there is left out, and said. With a BUDGET (30m), keys are searched for that long first. Two of the
# tables are made with Python and its package pyarrow.
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
        local folder=${name//[ ,]/-}
        rm -rf "out/bench/$folder-tuning"
        "$lamplighter" --quiet tune "$job" --budget "$budget" "$@" --set "output='../../out/bench/$folder-tuning'"
        local tuned="out/bench/$folder-tuning/tuning/tuned.toml"
        [[ ! -e $tuned ]] || "$lamplighter" --quiet evaluate "$job" "$@" --with "$tuned" \
            --set "output='../../out/bench/$folder-tuned'" | grep -v '^$'
    fi
}

for name in ml-1m gowalla; do
    evaluate "$name" "$data/$name/train.parquet" "jobs/bench/$name.toml" \
        --set "inputs.events.path='$data/$name/train.parquet'" \
        --set "evaluation.test='$data/$name/test.parquet'"
done
# The same models and weights under rules for more diverse lists: what that costs and brings.
if [[ -e $data/gowalla/train.parquet ]]; then
    for rules in '{long_tail=0.3,diversity=0.4}' '{long_tail=0.6,diversity=0.6}'; do
        printf '\n== gowalla, %s\n' "$rules"
        "$lamplighter" --quiet evaluate jobs/bench/gowalla.toml \
            --set "inputs.events.path='$data/gowalla/train.parquet'" \
            --set "evaluation.test='$data/gowalla/test.parquet'" --set "ranking.rules=$rules" | sed -n '/all @/,/fused/p'
    done
fi
evaluate beauty "$data/beauty/train.parquet" jobs/bench/beauty.toml \
    --set "inputs.events.path=['$data/beauty/train.parquet','$data/beauty/valid.parquet']" \
    --set "inputs.items.path='$data/beauty/items.parquet'" \
    --set "evaluation.test='$data/beauty/test.parquet'" --set 'evaluation.diversity=[0.1,0.2,0.3,0.5]'
if [[ -e $data/beauty/train.parquet ]]; then
    python3 scripts/hide_items.py "$data/beauty" out/bench/hidden
    hidden=$PWD/out/bench/hidden
    evaluate "beauty, a tenth of the items hidden" "$hidden/train.parquet" jobs/bench/beauty.toml \
        --set "inputs.events.path=['$hidden/train.parquet','$hidden/valid.parquet']" \
        --set "inputs.items.path='$data/beauty/items.parquet'" \
        --set "evaluation.test='$hidden/test.parquet'" --set "evaluation.ks=[10,50]" \
        --set "output='../../out/bench/beauty-hidden'"
fi
retail=$data/online-retail/online_retail.parquet
evaluate online-retail "$retail" jobs/bench/online-retail.toml --set "inputs.events.path='$retail'"
evaluate online-retail-new "$retail" jobs/bench/online-retail.toml --set "inputs.events.path='$retail'" \
    --set ranking.exclude_seen=true --set "output='../../out/bench/online-retail-new'"
if [[ -e $retail ]]; then
    for name in online-retail online-retail-new; do
        backtest=$(ls -td "out/bench/$name"/runs/*/stages/evaluate/backtest | head -1)
        printf '\n== %s: ' "$name"
        python3 scripts/score_known_items.py "$retail" "$backtest" $([[ $name != *-new ]] || echo --new)
    done
fi
