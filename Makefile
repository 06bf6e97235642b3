# Entry points. Each says what is missing and how to get it.

CARGO ?= cargo
DEMO_DIR ?= target/demo

.PHONY: demo demo-down

## demo: a master, three agents and an HTTPS site behind each, in the foreground; Ctrl-C ends it
demo:
	@command -v $(CARGO) >/dev/null || { echo "Rust is missing: install it from https://rustup.rs" >&2; exit 1; }
	$(CARGO) build --workspace --bins
	@exec $${CARGO_TARGET_DIR:-target}/debug/landline demo --dir $(DEMO_DIR) </dev/null

## demo-down: ends the demo from another shell
demo-down:
	@$${CARGO_TARGET_DIR:-target}/debug/landline demo --dir $(DEMO_DIR) --down
