# `make check` is the whole gate; CI calls it, and `make check-cuda`. `make help` lists the rest.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c

# Outside the clone, so that a fresh clone does not compile every dependency again.
CARGO_TARGET_DIR ?= $(HOME)/.cache/lamplighter/target
export CARGO_TARGET_DIR

JOB ?= jobs/nightly.toml
SHOP ?= data/shop
SHOP_ARGS ?=
DATA ?= data/bench
BUDGET ?=
PYTHON ?= python3
PEERS ?=
CHAIN ?=
OURS ?=

LAMPLIGHTER := $(CARGO_TARGET_DIR)/release/lamplighter
# insta appends the path of every snapshot that a test compares with.
SNAPSHOTS_IN_USE := $(CARGO_TARGET_DIR)/snapshots-in-use

# Cargo tells a file's age by its time alone: another clone that builds here may leave newer results.
BUILT_FROM := $(CARGO_TARGET_DIR)/built-from

.PHONY: help source build data run test test-airflow test-azure test-readers test-cuda check check-cuda fmt clippy snapshots doc audit shop bench bench-peers bench-chain bench-scale bench-quality bench-load faults clean-data
.DEFAULT_GOAL := help

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-13s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

source:
	@mkdir -p $(CARGO_TARGET_DIR)
	@if [[ "$$(cat $(BUILT_FROM) 2> /dev/null)" != "$(CURDIR)" ]]; then \
	  find src tests sql Cargo.toml -type f -exec touch {} +; echo "$(CURDIR)" > $(BUILT_FROM); fi

build: source ## Build the binary
	cargo build --release --locked

data: ## Fetch the demonstration data and the text encoder into data/
	python3 scripts/fetch.py

run: data build ## Run the demonstration job (JOB=jobs/nightly.toml)
	$(LAMPLIGHTER) run $(JOB)

test: data source ## Run all tests and doctests
	@mkdir -p $(CARGO_TARGET_DIR) && : > $(SNAPSHOTS_IN_USE)
	INSTA_SNAPSHOT_REFERENCES_FILE=$(SNAPSHOTS_IN_USE) cargo test --release --locked

test-airflow: build ## Run the DAG in a real Airflow, in a virtual environment of its own (needs network once)
	cargo build --release --locked --example shop
	scripts/test_airflow.sh $(LAMPLIGHTER) $(CARGO_TARGET_DIR)/release/examples/shop

test-azure: build ## Nights in a container of Azure's emulator, from npm (needs npm, and network once)
	cargo build --release --locked --example shop
	scripts/test_azure.sh $(LAMPLIGHTER) $(CARGO_TARGET_DIR)/release/examples/shop

test-readers: build ## DuckDB, pandas, pyarrow and Polars read every table, in a virtual environment of their own (needs network once)
	cargo build --release --locked --example shop
	python3 scripts/test_readers.py $(LAMPLIGHTER) $(CARGO_TARGET_DIR)/release/examples/shop $(CARGO_TARGET_DIR)/readers

check: fmt clippy snapshots doc test-readers ## Format, lints, tests, snapshots, documentation, readers: the whole gate

test-cuda: source ## Test the encoder on this machine's NVIDIA GPU (needs NVIDIA's toolkit, with nvcc)
	cargo test --release --locked --features cuda --lib encoder::

check-cuda: source ## Does the package compile for GPUs? NVIDIA's compiler comes into a virtual environment (needs network once)
	scripts/check_cuda.sh $(CARGO_TARGET_DIR)

fmt: ## Is everything formatted?
	cargo fmt --all --check

clippy: source ## Any lint?
	cargo clippy --release --all-targets --locked -- -D warnings

snapshots: test ## Run all tests; refuse snapshots that no test compares with, or that wait for review
	@pending=$$(find src tests -name '*.snap.new' -o -name '.*.pending-snap'); \
	unused=$$(comm -23 \
	  <(find src tests -name '*.snap' -exec realpath {} + | sort) \
	  <(xargs -r -d '\n' realpath < $(SNAPSHOTS_IN_USE) | sort -u)); \
	if [[ -n $$pending ]]; then printf 'snapshots waiting for review:\n%s\n' "$$pending" >&2; exit 1; fi; \
	if [[ -n $$unused ]]; then printf 'snapshots that no test compares with:\n%s\n' "$$unused" >&2; exit 1; fi

doc: source ## Build the documentation; a warning is an error
	RUSTDOCFLAGS="-D warnings" cargo doc --release --no-deps --locked

audit: ## Licences, sources and duplicates of dependencies (needs cargo-deny)
	@command -v cargo-deny > /dev/null || { echo 'cargo-deny is missing: cargo install --locked cargo-deny' >&2; exit 1; }
	cargo deny --locked check bans licenses sources

shop: source ## Write a made-up shop (SHOP=data/shop, SHOP_ARGS='--users 1000 --events 100000 --dirty 0.01')
	cargo run --release --locked --example shop -- $(SHOP) $(SHOP_ARGS)

bench: data source ## Time the kernels (retrieve, encode, factorize)
	cargo bench --locked --bench kernels

bench-peers: data build ## Time the aggregate, kernels and other programs in turn on SHOP (PYTHON with benches/peers/requirements.txt; PEERS='--rounds 5')
	cargo build --release --locked --example measure
	$(PYTHON) benches/peers/compare.py $(CARGO_TARGET_DIR)/release/examples/measure $(SHOP) data/models/all-MiniLM-L6-v2 out/peers $(PEERS)

bench-chain: data build ## The whole job by other programs in one process on SHOP, then by ours (PYTHON as for bench-peers; CHAIN='--aggregate polars'; OURS='--set encoder.precision=bf16')
	$(PYTHON) benches/peers/chain.py $(SHOP) data/models/all-MiniLM-L6-v2 out/chain $(CHAIN)
	rm -rf out/chain/ours
	$(LAMPLIGHTER) run benches/peers/chain.toml --stage rank --set inputs.events.path=$(abspath $(SHOP))/events \
	  --set inputs.items.path=$(abspath $(SHOP))/items.parquet $(OURS)

bench-scale: data build ## How the kernels' cost grows, two threads against one, memory, on SHOP (PYTHON as for bench-peers)
	cargo build --release --locked --example measure
	$(PYTHON) benches/peers/scale.py $(CARGO_TARGET_DIR)/release/examples/measure $(SHOP) data/models/all-MiniLM-L6-v2 out/scale

bench-quality: build ## Quality on public data sets (DATA=folder; BUDGET=30m tunes first)
	scripts/bench_quality.sh $(LAMPLIGHTER) $(DATA) $(BUDGET)

bench-load: build ## Users a second into a Redis, beside a redis-py pipeline (JOB=jobs/nightly.toml)
	python3 scripts/bench_load.py $(LAMPLIGHTER) $(JOB)

faults: build ## 200 faults of a night: system calls, writes, kills, a store's errors (needs strace, and the Python packages pyarrow and moto[server])
	cargo build --release --locked --example shop
	python3 scripts/faults.py $(LAMPLIGHTER) $(CARGO_TARGET_DIR)/release/examples/shop

clean-data: ## Remove what `make data` and `make shop` have written under data/
	rm -rf data/complete-journey data/models/all-MiniLM-L6-v2 data/shop
