# Thin: cargo and npm do the work.
#   make run    installs what is missing, builds, serves on 127.0.0.1:8787
#   make test   everything that continuous integration runs
#   make spin   builds what `spin up` serves: target/syncline-spin.wasm and target/syncline-spin-portable.wasm
#   make bench  measures, beside baselines in the same run (docs/benchmarks.md)
.PHONY: run build component spin test bench lint unit postgres spin-fake spin-test spin-docs clients fuzz docs clean tools cxx node nextest initdb chromium

CARGO ?= cargo
ARGS ?=

run: build
	./target/release/syncline serve $(ARGS)

# target/release/syncline, with the component inside (host/build.rs compiles it).
build: tools
	$(CARGO) build --release --locked

# The component alone: target/component/wasm32-wasip2/component/syncline_component.wasm
component: tools
	$(CARGO) build --profile component --locked --target wasm32-wasip2 -p syncline-component -p syncline-app-empty -p syncline-services --target-dir target/component

# For Spin: adapters, services, the empty app and the logic in one component each. With an app: app=app.wasm
spin: build
	./target/release/syncline compose --for spin $(if $(app),--app $(app)) --output target/syncline-spin.wasm
	./target/release/syncline compose --for spin-portable $(if $(app),--app $(app)) --output target/syncline-spin-portable.wasm

test: build lint unit postgres spin-fake spin-test clients fuzz

lint: tools
	$(CARGO) fmt --all --check
	$(CARGO) clippy --release --locked --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --release --locked --no-deps --quiet

# SYNCLINE_TEST_SCALE=10 makes the random and the crash tests run ten times as long.
unit: build nextest initdb
	tests/with-postgres $(CARGO) nextest run --release --locked --no-fail-fast
	$(CARGO) test --release --locked --doc

# The stories of the protocols once more, with every server's data in PostgreSQL.
postgres: build nextest initdb
	SYNCLINE_TEST_EXECUTOR=postgres tests/with-postgres $(CARGO) nextest run --release --locked --no-fail-fast --profile postgres

# Stories of plasma once more, with the composed component on a fake of Spin (tests/src/spin).
spin-fake: build nextest initdb
	SYNCLINE_TEST_HOST=spin tests/with-postgres $(CARGO) nextest run --release --locked --no-fail-fast --profile spin

# The same on Fermyon's Spin, where that is installed.
spin-test: build nextest initdb
	SYNCLINE_TEST_HOST=spin-up tests/with-spin tests/with-postgres $(CARGO) nextest run --release --locked --no-fail-fast --profile spin

# Writes the table of docs/spin.md by trying what works.
spin-docs: build nextest initdb
	SYNCLINE_WRITE_DOCS=1 tests/with-postgres $(CARGO) nextest run --release --locked -E 'test(the_page_says_what_works_where)'
	SYNCLINE_WRITE_DOCS=1 SYNCLINE_TEST_HOST=spin-up tests/with-spin tests/with-postgres $(CARGO) nextest run --release --locked -E 'test(the_page_says_what_works_where)'

# Real clients from npm against the binary that was just built; plasma's once more with the rows in PostgreSQL, and most of them
# through a gateway in front of a fake of Spin.
clients: build node chromium initdb
	cd examples && npm ci --no-audit --no-fund --silent
	cd examples/todo-web && npm ci --no-audit --no-fund --silent && npm run --silent check && npm run --silent build
	$(CARGO) build --release --locked --example spin
	cd tests/clients && npm ci --no-audit --no-fund --silent && npm test && npm run --silent test:postgres && npm run --silent test:spin

# Every decoder on inputs that nobody thought of, 10 s times SYNCLINE_TEST_SCALE each (tests/fuzz/README.md).
fuzz: tools cxx
	CARGO="$(CARGO)" only="$(only)" input="$(input)" tests/fuzz/run

# only='fan-out' (part of a case's name), rounds=5, seconds=3, quick=1 (does it work at all?), large=1 (what takes many minutes), write-docs=1
bench: build node initdb
	cd tests/bench/peers && npm ci --no-audit --no-fund --silent
	cd tests/clients && npm ci --no-audit --no-fund --silent
	SYNCLINE_TEST_FSYNC=on tests/with-postgres $(CARGO) bench --locked --bench protocols -- \
		$(if $(quick),--quick) $(if $(large),--large) $(if $(only),--only '$(only)') $(if $(rounds),--rounds $(rounds)) \
		$(if $(seconds),--seconds $(seconds)) $(if $(write-docs),--write-docs)

tools:
	@command -v $(CARGO) >/dev/null || { echo "Rust is missing: install rustup (for instance: apt-get install rustup && rustup default stable)"; exit 1; }
	@test -d "$$(rustc --print sysroot)/lib/rustlib/wasm32-wasip2" || rustup target add wasm32-wasip2
	@command -v cc >/dev/null || { echo "installing a C compiler for SQLite"; apt-get update -qq && apt-get install -y -qq gcc libc6-dev; }

cxx:
	@command -v c++ >/dev/null || { echo "installing a C++ compiler for libFuzzer"; apt-get update -qq && apt-get install -y -qq g++; }

nextest:
	@$(CARGO) nextest --version >/dev/null 2>&1 || $(CARGO) install --locked cargo-nextest

initdb:
	@command -v initdb >/dev/null || ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1 || \
		{ echo "installing PostgreSQL for tests"; apt-get update -qq && apt-get install -y -qq postgresql; }

node:
	@command -v npm >/dev/null || { apt-get update -qq && apt-get install -y -qq nodejs npm; }

chromium:
	@command -v chromium >/dev/null || command -v chromium-browser >/dev/null || \
		{ echo "installing Chromium for tests"; apt-get update -qq && apt-get install -y -qq chromium; }

clean:
	$(CARGO) clean
