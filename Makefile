# Entry points. Each says what is missing and how to get it.

CARGO ?= cargo
DEMO_DIR ?= target/demo
BIN = $${CARGO_TARGET_DIR:-target}/debug

.PHONY: demo demo-down dashboard test soak chaos compat check bench audit fuzz rust

## demo: a master, three agents and an HTTPS site behind each, in the foreground; Ctrl-C ends it
demo: rust
	@if command -v npm >/dev/null; then $(MAKE) --no-print-directory dashboard; \
	else echo "No dashboard: npm is missing. Install Node.js 20 or newer, then: make dashboard" >&2; fi
	$(CARGO) build --workspace --bins
	@exec $(BIN)/landline demo --dir $(DEMO_DIR) </dev/null

## demo-down: ends the demo from another shell
demo-down:
	@[ ! -x $(BIN)/landline ] || $(BIN)/landline demo --dir $(DEMO_DIR) --down

## dashboard: the pages that the master serves at /, from master/dashboard; needs Node.js 20 or newer
dashboard:
	@command -v npm >/dev/null || { echo "npm is missing: install Node.js 20 or newer, on Debian: apt-get install nodejs npm" >&2; exit 1; }
	cd master/dashboard && npm ci --no-fund --no-audit --loglevel=error && npm run --silent build

## test: everything, after installing what it needs
test: rust
	deploy/dev/install-test-tools
	@$(MAKE) --no-print-directory dashboard
	deploy/dev/run-tests

## soak: the tests that have a long form, at its full counts: 2 GiB, 20,000 files, 50 kills, 100,000 swaps; half an hour
soak: rust
	deploy/dev/install-test-tools
	deploy/dev/run-soak

## chaos: what may befall a fleet, in the order that SEED says, for SECONDS_TO_RUN; prints each step
SEED ?= $(shell od -An -N4 -tu4 /dev/urandom | tr -d ' ')
SECONDS_TO_RUN ?= 600
chaos: rust
	deploy/dev/install-test-tools
	$(CARGO) build --workspace --bins
	LANDLINE_CHAOS_SEED=$(SEED) LANDLINE_CHAOS_SECONDS=$(SECONDS_TO_RUN) $(CARGO) test -p landline-tests --test e2e -- \
		--ignored --exact --nocapture chaos::a_fleet_comes_through_any_seed

## compat: an agent of RELEASE (a tag or a commit) with this tree's master, and the other way round
compat: rust
	@[ -n "$(RELEASE)" ] || { echo "usage: make compat RELEASE=v0.1.0" >&2; exit 2; }
	deploy/dev/install-test-tools
	deploy/dev/run-compat $(RELEASE)

## check: what needs no other programs: format, lints, unit tests
check: rust
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets -- -D warnings
	$(CARGO) test --workspace --exclude landline-tests

## bench: measurements that print their figures; nothing passes or fails by time
bench: rust
	$(CARGO) build --workspace --bins
	$(CARGO) run -p landline-benches

## audit: the advisory database against the lock file, where it can be reached
audit: rust
	@command -v cargo-audit >/dev/null || $(CARGO) install --locked cargo-audit
	@$(CARGO) audit || { echo "cargo audit failed: findings above, or the advisory database cannot be reached from here" >&2; exit 1; }

## fuzz: each fuzz target for FUZZ_SECONDS (60), with the nightly compiler
FUZZ_SECONDS ?= 60
fuzz: rust
	@command -v cargo-fuzz >/dev/null || $(CARGO) install --locked cargo-fuzz
	@for target in $$($(CARGO) +nightly fuzz list); do $(CARGO) +nightly fuzz run $$target -- -max_total_time=$(FUZZ_SECONDS) || exit 1; done

rust:
	@command -v $(CARGO) >/dev/null || { echo "Rust is missing: install it from https://rustup.rs" >&2; exit 1; }
