#!/usr/bin/env bash
# Nights in a container of Azure's storage, as its emulator (Azurite, from npm) has it: the rows of a folder, a run
# that is gone back to, two schedulers at once. Needs network the first time.
# Usage: test_azure.sh LAMPLIGHTER SHOP-EXAMPLE
set -euo pipefail
cd "$(dirname "$0")/.."

readonly binary=$(realpath "$1") shop=$(realpath "$2")
readonly version=3.37.0
readonly environment="${AZURITE:-$HOME/.cache/lamplighter/azurite-$version}"
readonly port=10000 container=shop

if [[ ! -e $environment/installed ]]; then
    mkdir -p "$environment"
    npm install --silent --no-fund --no-audit --prefix "$environment" "azurite@$version"
    touch "$environment/installed"
fi

work=$(mktemp -d)
"$environment/node_modules/.bin/azurite-blob" --disableTelemetry --silent --location "$work/store" \
    --blobHost 127.0.0.1 --blobPort "$port" --skipApiVersionCheck > "$work/azurite.log" 2>&1 &
server=$!
trap 'kill "$server"; wait "$server" 2> /dev/null || true; rm -rf "$work"' EXIT
trap 'cat "$work"/*.log >&2' ERR
for _ in $(seq 100); do
    if (: > "/dev/tcp/127.0.0.1/$port") 2> /dev/null; then break; fi
    sleep 0.1
done

# The account and key that the emulator has for everybody; the container is made with them once.
python3 - "$port" "$container" << 'PYTHON'
import base64, datetime, hashlib, hmac, sys, urllib.request
port, container = sys.argv[1:]
account = "devstoreaccount1"
key = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
headers = {
    "x-ms-date": datetime.datetime.now(datetime.timezone.utc).strftime("%a, %d %b %Y %H:%M:%S GMT"),
    "x-ms-version": "2021-08-06",
}
canonical = "".join(f"{name}:{headers[name]}\n" for name in sorted(headers))
told = "PUT" + "\n" * 12 + canonical + f"/{account}/{account}/{container}\nrestype:container"
signature = hmac.new(base64.b64decode(key), told.encode(), hashlib.sha256).digest()
headers["Authorization"] = f"SharedKey {account}:{base64.b64encode(signature).decode()}"
url = f"http://127.0.0.1:{port}/{account}/{container}?restype=container"
with urllib.request.urlopen(urllib.request.Request(url, method="PUT", headers=headers)) as answer:
    assert answer.status == 201, answer.status
PYTHON
export AZURE_STORAGE_USE_EMULATOR=true AZURE_STORAGE_ACCOUNT_NAME=devstoreaccount1

"$shop" "$work/data" --users 300 --items 200 --events 5000 --days 20 --end 2026-11-21 > /dev/null
cp scripts/night.toml "$work/"
# Later nights have no events of their own.
printf '\n[gate]\nenabled = false\n' >> "$work/night.toml"
readonly stored="az://$container/out"

# A command, the output, the mirror, and more arguments.
lamplighter() {
    "$binary" "$1" "$work/night.toml" --set "output=$2" --set "work=$work/$3" --quiet "${@:4}" 2> "$work/$3.log"
}
rows() {
    lamplighter sql "$1" mirror --format csv 'SELECT * FROM recommendations ORDER BY user_id, rank'
}

lamplighter run "$work/out" mirror --date 2026-11-21 > /dev/null
lamplighter run "$stored" mirror --date 2026-11-21 > /dev/null
rows "$work/out" > "$work/of-folder.csv"
rows "$stored" > "$work/of-store.csv"
[[ -s $work/of-folder.csv ]]
cmp "$work/of-folder.csv" "$work/of-store.csv"
lamplighter run "$stored" mirror --date 2026-11-22 > /dev/null
lamplighter rollback "$stored" mirror | grep -q 'readers load night-2026-11-21-1 again'

schedulers=()
for mirror in one other; do
    lamplighter run "$stored" "$mirror" --date 2026-11-23 > /dev/null &
    schedulers+=($!)
done
ended=()
for process in "${schedulers[@]}"; do
    code=0
    wait "$process" || code=$?
    ended+=("$code")
done
if [[ $(printf '%s\n' "${ended[@]}" | sort | xargs) != '0 4' ]]; then
    cat "$work/one.log" "$work/other.log" >&2
    echo "two at once: expected codes 0 and 4; found ${ended[*]}" >&2
    exit 1
fi
lamplighter runs "$stored" mirror | grep -q 'night-2026-11-23-1 .* current'
echo 'Azure: the rows of a folder, a way back, one of two schedulers'
