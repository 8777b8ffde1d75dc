# Needs a Rust toolchain (rustup reads rust-toolchain.toml) and, for real gateways, npm. What else is missing is put into a
# cache outside the tree (see `make help`), never into the system.

CARGO ?= cargo
# Which gateway the demo starts: nothing for the simulated one, or a version of OpenClaw.
GATEWAY ?=

# rustup's own directory is not on every non-interactive PATH.
export PATH := $(PATH):$(HOME)/.cargo/bin

.PHONY: help
help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@echo
	@echo "  GATEWAY=2026.9.6                  for 'make demo': a real OpenClaw of this version, from npm (about 650 MB);"
	@echo "                                    for 'make bench': measure this version (default: 2026.9.6)"
	@echo "  OPENCLAW_CONTROLLER_CACHE=DIR     where Postgres, Prometheus, Node and gateways are kept (default: /var/cache/openclaw-controller"
	@echo "                                    for root, else ~/.cache/openclaw-controller)"
	@echo "  OPENCLAW_CONTROLLER_PG=cache      use an unpacked Postgres even if the system has one"
	@echo "  OPENCLAW_CONTROLLER_PROMETHEUS=cache  the same for Prometheus"

.PHONY: build
build: ## Build the release binary (without the simulated gateway and the demo)
	$(CARGO) build --release --locked

.PHONY: demo
demo: ## Postgres, a gateway, two boards, six agents: watch them converge; Ctrl-C ends it all
	$(CARGO) run --locked --features sim -- demo $(if $(GATEWAY),--gateway $(GATEWAY))

.PHONY: lint
lint: ## Formatting, clippy, documentation, licences: without running anything
	$(CARGO) fmt --check
	$(CARGO) clippy --locked -- -D warnings
	$(CARGO) clippy --locked --all-targets --features sim -- -D warnings
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --locked --no-deps --features sim
	@if command -v cargo-deny >/dev/null; then $(CARGO) deny --locked check; else echo "cargo-deny is not installed: licences and advisories are not checked"; fi

.PHONY: test
test: lint ## Everything: lint, then all tests, with real Postgres and real gateways
	$(CARGO) test --locked --features sim

.PHONY: bench
bench: ## Convergence against the bare minimal calls, on real gateways (several minutes)
	$(CARGO) bench --locked --features sim --bench convergence -- $(if $(GATEWAY),--gateway $(GATEWAY))
