#!/usr/bin/env bash
# Runs the DAG of jobs/airflow in the released Airflow, in a virtual environment of its own: a night that is
# published, one that is run again, one that the gate refuses, and one that is backfilled. Needs network the
# first time. Usage: test_airflow.sh LAMPLIGHTER SHOP-EXAMPLE
set -euo pipefail
cd "$(dirname "$0")/.."

readonly binary=$(realpath "$1") shop=$(realpath "$2")
readonly version=3.3.2
readonly environment="${AIRFLOW_VENV:-$HOME/.cache/lamplighter/airflow-$version}"

if [[ ! -e $environment/installed ]]; then
    python3 -m venv "$environment"
    "$environment/bin/pip" install --quiet "apache-airflow==$version"
    touch "$environment/installed"
fi

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir "$work/dags" "$work/out"
cp jobs/airflow/lamplighter_nightly.py "$work/dags/"
"$shop" "$work/data" --users 300 --items 200 --events 5000 --days 20 --end 2026-11-21 > /dev/null
cp scripts/night.toml "$work/"
printf '\n[behavior]\nlater_events = "exclude"\n' >> "$work/night.toml"

export AIRFLOW_HOME="$work/airflow" AIRFLOW__CORE__DAGS_FOLDER="$work/dags" AIRFLOW__CORE__LOAD_EXAMPLES=False
export AIRFLOW__LOGGING__LOGGING_LEVEL=WARNING
export LAMPLIGHTER="$binary" LAMPLIGHTER_JOB="$work/night.toml" LAMPLIGHTER_SETTLED_S=0
export LAMPLIGHTER_FRESH="$work/data/events/event_date={ds}"
"$environment/bin/airflow" db migrate > "$work/migrate.log" 2>&1 || { cat "$work/migrate.log" >&2; exit 1; }

# One night: its date, and what is expected of the DAG.
night() {
    local code=0
    "$environment/bin/airflow" dags test lamplighter_nightly "$1" > "$work/night.log" 2>&1 || code=$?
    # The run's state is said in the log; the exit code of `dags test` has not always followed it.
    if [[ $2 == success ]]; then
        [[ $code -eq 0 ]] && ! grep -q 'state=failed\|Dag run failed' "$work/night.log" && return
    else
        grep -q 'the gate refused the night' "$work/night.log" && return
    fi
    cat "$work/night.log" >&2
    echo "night of $1: expected $2" >&2
    exit 1
}

expect() {
    [[ $2 == "$3" ]] || { echo "$1: expected $3; found $2" >&2; exit 1; }
}

current() {
    python3 -c 'import json, sys; print(json.load(open(sys.argv[1]))["run_id"])' "$work/out/CURRENT"
}

state() {
    python3 -c 'import json, sys; print(json.load(open(sys.argv[1]))["state"])' "$work/out/runs/$1/manifest.json"
}

night 2026-11-20 success
expect 'after a night' "$(current)" night-2026-11-20-1
night 2026-11-20 success
expect 'after the same night again' "$(current)" night-2026-11-20-2
night 2026-11-18 success
expect 'after a backfill' "$(current)" night-2026-11-20-2
expect 'the backfilled run' "$(state night-2026-11-18-1)" held
rm -r "$work"/data/events/event_date=2026-11-0*
night 2026-11-21 failure
expect 'after a night without half of its events' "$(current)" night-2026-11-20-2
expect 'the refused run' "$(state night-2026-11-21-1)" refused
echo 'airflow: four nights, as they should be'
