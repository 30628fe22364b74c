#!/bin/sh
# One night of a job, tried again where a retry may help: nightly.sh JOB [more arguments of `run`].
#
# Exit code 1 (failed while working) is tried again up to TRIES times, after PAUSE seconds: finished stages are
# taken over. 2 (input refused), 3 (the gate refused) and 4 (another run is working) end the night at once. With
# REDIS_URL set, what was published is loaded.
set -u

tries=0
while :; do
    tries=$((tries + 1))
    lamplighter run --log-format text "$@"
    code=$?
    if [ "$code" -ne 1 ] || [ "$tries" -ge "${TRIES:-4}" ]; then break; fi
    sleep "${PAUSE:-300}"
done

if [ "$code" -eq 0 ] && [ -n "${REDIS_URL:-}" ]; then
    lamplighter load "$1"
    code=$?
fi
exit "$code"
