# Needs a Rust toolchain (rustup reads rust-toolchain.toml) and, for real gateways, npm. What else is missing is put into a
# cache outside the tree (see `make help`), never into the system.

CARGO ?= cargo
# Which gateway the demo starts: nothing for the simulated one, or a version of OpenClaw.
GATEWAY ?=
# How long each fuzz target runs.
FUZZ_SECONDS ?= 60
# Which gateways 'make test-gateways' starts, separated by blanks: nothing for the eight that the tests name.
VERSIONS ?=

# rustup's own directory is not on every non-interactive PATH.
export PATH := $(PATH):$(HOME)/.cargo/bin

.PHONY: help
help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-13s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@echo
	@echo "  GATEWAY=2026.9.6                  for 'make demo': a real OpenClaw of this version, from npm (about 650 MB);"
	@echo "                                    for 'make bench': measure this version (default: 2026.9.6)"
	@echo "  FUZZ_SECONDS=600                  for 'make fuzz': how long each of its three targets runs (default: 60)"
	@echo "  VERSIONS=\"2026.8.1 2026.9.3\"      for 'make test-gateways': these instead, any that npm has"
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
lint: ## Formatting, clippy, documentation, licences, of the fuzz targets too: without running anything
	$(CARGO) fmt --check
	$(CARGO) clippy --locked -- -D warnings
	$(CARGO) clippy --locked --all-targets --features sim -- -D warnings
	$(CARGO) clippy --locked --features sim --test gateways -- -D warnings
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --locked --no-deps --features sim
	@# A package of its own, which nothing else compiles; the dependencies that both have are compiled once.
	cd fuzz && $(CARGO) fmt --check && $(CARGO) check --locked --target-dir ../target
	@if command -v cargo-deny >/dev/null; then $(CARGO) deny --locked check; else echo "cargo-deny is not installed: licences and advisories are not checked"; fi

.PHONY: test
test: lint ## Everything: lint, then all tests, with real Postgres and real gateways
	$(CARGO) test --locked --features sim

.PHONY: fuzz
fuzz: ## Fuzz everything that a gateway can say with libFuzzer; what it finds is kept in fuzz/artifacts (a minute per target)
	@fuzz=$$(deploy/dev/install-cargo-fuzz.sh) && cd fuzz && for target in frame config file; do \
	  mkdir -p found/$$target && \
	  RUSTC_BOOTSTRAP=1 RUST_BACKTRACE=0 PATH="$$(dirname "$$fuzz"):$$PATH" $(CARGO) fuzz run -s none $$target found/$$target corpus/$$target -- \
	    -max_total_time=$(FUZZ_SECONDS) -timeout=10 -rss_limit_mb=2048 -max_len=65536 -print_final_stats=1 || exit 1; \
	done

.PHONY: test-gateways
test-gateways: ## Every check and one fleet on real gateways of eight versions, one after the other, and a table
	$(CARGO) test --locked --features sim --test gateways -- $(VERSIONS)

.PHONY: shots
shots: ## Pictures of the status page, made by the tests, into target/shots; the one in docs/ anew
	PAGE_SHOTS=$(CURDIR)/target/shots $(CARGO) test --locked --features sim --test page browser::
	cp target/shots/healthy-light.png docs/status-page.png

.PHONY: docs
docs: ## The page about configuration anew, from the program's own definitions
	WRITE_DOCS=1 $(CARGO) test --locked --features sim --test docs the_page_about_configuration

.PHONY: bench
bench: ## Convergence against the bare minimal calls, on real gateways (several minutes)
	$(CARGO) bench --locked --features sim --bench convergence -- $(if $(GATEWAY),--gateway $(GATEWAY))
