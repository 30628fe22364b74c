#!/bin/sh
# One night of a job, tried again where a retry may help: nightly.sh JOB.
#
# A night that failed while working (1) or was killed is tried again up to TRIES times, after PAUSE seconds: finished
# stages are taken over. 2 (input refused), 3 (the gate refused) and 4 (another run is working) end the night at once.
# With REDIS_URL set, what was published is loaded, and that is tried again likewise.
set -u

if [ "$#" -ne 1 ]; then
    # `load` would not know of another output that `run` was told of here.
    echo "usage: nightly.sh JOB; further keys belong into the job file" >&2
    exit 2
fi

attempt() {
    tries=0
    while :; do
        tries=$((tries + 1))
        lamplighter "$@"
        code=$?
        case "$code" in
            0 | 2 | 3 | 4) break ;;
        esac
        if [ "$tries" -ge "${TRIES:-4}" ]; then break; fi
        sleep "${PAUSE:-300}"
    done
}

attempt run --log-format text "$1"
if [ "$code" -eq 0 ] && [ -n "${REDIS_URL:-}" ]; then
    attempt load "$1"
fi
exit "$code"
