"""A night as an Airflow DAG: one task a stage, the gate as a branch, publish and load behind it.

Copy it into the DAG folder. Where things are is said in the environment of the workers:

    LAMPLIGHTER             the binary; `lamplighter` on the PATH where it is not set
    LAMPLIGHTER_JOB         the job file
    LAMPLIGHTER_FRESH       what must be there before a night begins, with {ds} for its date, as
                            /srv/shop/data/events/event_date={ds}
    LAMPLIGHTER_LOAD        `yes`: load what was published into the Redis of REDIS_URL

A night's date is the day whose events it is the first to see (`--date {{ ds }}`). For a backfill over earlier
dates the job needs `behavior.later_events = "exclude"`; such nights are completed and held, and CURRENT stays.
Every task may be cleared and run again: finished stages are taken over.
"""

import os
import subprocess
import time
from datetime import datetime, timedelta, timezone
from pathlib import Path

from airflow.sdk import dag, task
from airflow.sdk.exceptions import AirflowException, AirflowFailException
from airflow.timetables.interval import CronDataIntervalTimetable

LAMPLIGHTER = os.environ.get("LAMPLIGHTER", "lamplighter")
JOB = os.environ.get("LAMPLIGHTER_JOB", "jobs/nightly.toml")
FRESH = os.environ.get("LAMPLIGHTER_FRESH", "")
LOAD = os.environ.get("LAMPLIGHTER_LOAD", "") == "yes"

STAGES = ["behavior", "catalog", "encode", "factorize", "neighbors", "profile", "learn", "rank", "evaluate"]

# Files that were written to within this time may still be growing.
SETTLED_S = int(os.environ.get("LAMPLIGHTER_SETTLED_S", "600"))


def lamplighter(*arguments):
    """Runs the binary; its exit code says whether a retry can help."""
    code = subprocess.run([LAMPLIGHTER, *arguments], check=False).returncode
    if code == 2:
        raise AirflowFailException("the input or the job was refused: a retry cannot help")
    if code not in (0, 3):
        # 4 is another run at work, 1 a failure that a retry goes on from.
        raise AirflowException(f"lamplighter ended with {code}")
    return code


@dag(
    dag_id="lamplighter_nightly",
    schedule=CronDataIntervalTimetable("30 2 * * *", timezone="UTC"),
    start_date=datetime(2026, 1, 1, tzinfo=timezone.utc),
    catchup=False,
    # One run of a job works at a time; a second one would only meet the lock.
    max_active_runs=1,
    default_args={"retries": 3, "retry_delay": timedelta(minutes=5)},
    tags=["recommendations"],
)
def lamplighter_nightly():
    @task.sensor(poke_interval=300, timeout=6 * 3600, mode="reschedule")
    def input_is_fresh(ds=None):
        """The day's events are there and no longer written to."""
        if not FRESH:
            return True
        files = list(Path(FRESH.format(ds=ds)).glob("**/*.parquet"))
        return bool(files) and all(time.time() - file.stat().st_mtime >= SETTLED_S for file in files)

    def stage(name):
        @task(task_id=name)
        def run(ds=None):
            lamplighter("run", JOB, "--date", ds, "--stage", name)

        return run()

    @task.branch
    def gate(ds=None):
        """Measures the night; what the gate refuses is not published, and is not tried again."""
        return "refused" if lamplighter("run", JOB, "--date", ds, "--stage", "gate") == 3 else "publish"

    @task
    def publish(ds=None):
        if lamplighter("run", JOB, "--date", ds) == 3:
            raise AirflowFailException("the gate has come to refuse the night")

    @task(retries=0)
    def refused(ds=None):
        raise AirflowFailException(
            f"the gate refused the night of {ds}; `lamplighter runs` and `diff` show it, "
            f"`lamplighter run {JOB} --date {ds} --accept` publishes it all the same"
        )

    @task
    def load():
        lamplighter("load", JOB)

    last = input_is_fresh()
    for name in STAGES:
        following = stage(name)
        last >> following
        last = following
    decided = gate()
    published = publish()
    last >> decided >> [published, refused()]
    if LOAD:
        published >> load()


lamplighter_nightly()
