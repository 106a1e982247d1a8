# Everything one does with fcvm; `make` alone lists it. The recipes are one
# line each: what they do is in scripts/.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
MAKEFLAGS += --no-print-directory
.DEFAULT_GOAL := help

# rustup's cargo is there even where the login shell's PATH is not.
export PATH := $(or $(CARGO_HOME),$(HOME)/.cargo)/bin:$(PATH)
# Tests by (part of a) name, and their output as it comes: make test FILTER=image STREAM=1
export FILTER STREAM

.PHONY: help demo deps build setup-fcvm setup-btrfs test test-unit test-fast test-all test-root test-firecracker test-restore soak \
	lint fmt fmt-check clippy bench bench-quick bench-fuse bench-fuse-quick bench-network \
	bench-network-quick bench-clone bench-clone-quick bench-uffd bench-uffd-quick docs man clean

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-16s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@echo
	@echo '  FILTER=name  for test*: only tests with that in their names'
	@echo '  STREAM=1     for test*: show their output as it comes, one test at a time'

demo: ## From nothing to a container in a microVM: deps, build, set-up, an image, a run
	@scripts/demo.sh

deps: ## Install the packages that building and running need and that are missing (apt)
	@scripts/deps.sh

build: deps ## Build fcvm and the guest's agent, optimized, into target/
	@scripts/build.sh

setup-fcvm: build ## Build, then install kernel, base disk and initrd with `fcvm setup`
	@scripts/fcvm.sh setup

setup-btrfs: ## Make a data directory in which copies cost nothing, a btrfs in a file: FCVM_DATA_DIR=, SIZE= (root)
	@FCVM_DATA_DIR="$(FCVM_DATA_DIR)" SIZE="$(SIZE)" IMAGE="$(IMAGE)" scripts/setup-btrfs.sh

test: ## Run every test that can run here: as root test-root, else test-all
	@scripts/test.sh here

test-unit: ## Run the tests that need neither a VM nor root
	@scripts/test.sh unit

test-fast: ## The same, and the quick tests that boot VMs (vm_*)
	@scripts/test.sh fast

test-all: ## The same, and those that take minutes (slow_*)
	@scripts/test.sh all

test-root: ## The same, and those that need root (root_*)
	@scripts/test.sh root

test-firecracker: ## Run tests of VMs on a real Firecracker: FCVM_FIRECRACKER, or in PATH
	@scripts/test.sh firecracker

test-restore: ## Run what clones of snapshots are to be, on this machine's hypervisor or FCVM_TEST_HYPERVISOR
	@scripts/test.sh restore

soak: ## Start, use and stop VMs in the background 200 times, with sudden deaths: ROUNDS=, FCVM_SOAK_SEED=
	@FCVM_SOAK_ROUNDS=$${FCVM_SOAK_ROUNDS:-$(or $(ROUNDS),200)} FILTER=soak_of_lives STREAM=1 scripts/test.sh here

lint: ## Check format, clippy's lints and the shell scripts
	@scripts/lint.sh

fmt: ## Format the sources
	cargo fmt --all

fmt-check: ## Check that the sources are formatted
	cargo fmt --all --check

clippy: deps ## Run clippy; warnings are errors
	cargo clippy --workspace --all-targets --locked -- -D warnings

docs: ## Write docs/reference/cli.md from the command line itself
	cargo run --quiet --release --locked -p fcvm --example reference -- --markdown docs/reference/cli.md

man: ## Write man pages into target/man
	cargo run --quiet --release --locked -p fcvm --example reference -- --man $(or $(CARGO_TARGET_DIR),target)/man

bench: setup-fcvm ## Measure starts, commands, image disks and pulls, 20 runs
	@scripts/bench.sh

bench-quick: setup-fcvm ## Measure starts, commands, image disks and pulls, 5 runs
	@scripts/bench.sh --quick

bench-fuse: deps ## Measure directories through fuse-pipe, beside the host and other servers, 3 rounds (root)
	@scripts/bench-fuse.sh

bench-fuse-quick: deps ## The same, 1 round
	@scripts/bench-fuse.sh --quick

bench-network: setup-fcvm ## Measure networks of VMs beside the host's, 5 rounds (root)
	cargo bench --quiet --locked -p fcvm --bench network

bench-network-quick: setup-fcvm ## The same, 1 round
	cargo bench --quiet --locked -p fcvm --bench network -- --quick

bench-clone: setup-fcvm ## Measure how fast clones of a snapshot answer, and their memory, 15 rounds
	cargo bench --quiet --locked -p fcvm --bench clone

bench-clone-quick: setup-fcvm ## The same, 3 rounds
	cargo bench --quiet --locked -p fcvm --bench clone -- --quick

bench-uffd: deps ## Measure pages that clones touch first, beside the kernel and another page server, 5 rounds (root)
	cargo bench --quiet --locked -p fcvm-uffd --bench faults

bench-uffd-quick: deps ## The same, 2 rounds
	cargo bench --quiet --locked -p fcvm-uffd --bench faults -- --quick

clean: ## Remove what was built; not what `fcvm setup` made
	cargo clean
