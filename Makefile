# Every action a person takes. `make help` lists them.
ENGINE ?= target/release/wherryd
ACCEPTANCE ?= ../shared/acceptance
SCRIPTS ?= 01 04 05
N ?= 20
KILLS ?= 100
CUTS ?= 30
export ENGINE := $(abspath $(ENGINE))

.DEFAULT_GOAL := help
.PHONY: help setup build run demo test test-checkpoints test-unit test-e2e test-reference kill-test fuzz lint fmt bench conformance-runtime test-runtime-guests test-vm acceptance install clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  make %-15s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: ## install what is missing: Debian packages, the docker client with Compose and buildx, cargo-nextest
	@.ci/setup

build: ## compile the four programs into target/release
	cargo build --release -p wherryd -p wherry-netd -p wherry-runtime --bin wherryd --bin wherry-netd --bin wherry-monitor
	@.ci/static-runtime

run: setup build ## start wherryd on /var/run/docker.sock (more arguments: ARGS=…)
	target/release/wherryd $(ARGS)

demo: root setup build ## start wherryd in namespaces of its own, run containers with the docker client, clean up
	@integration/demo.sh

test: root setup build ## all tests: unit, kernel, end-to-end (as root)
	@if tests/programs/find-criu >/dev/null; then $(MAKE) --no-print-directory test-checkpoints; fi
	cargo nextest run --workspace

test-unit: root setup ## all tests but the end-to-end ones (as root)
	cargo nextest run --workspace --exclude wherry-tests

test-e2e: root setup build ## the end-to-end tests, against ENGINE (as root; T=… names some of them)
	cargo nextest run -p wherry-tests $(T)

test-checkpoints: root setup build ## the end-to-end tests of checkpoints, where a criu knows this kernel; `make test` has them, too, then
	cargo nextest run -p wherry-tests --run-ignored only -E 'test(/^checkpoints::/)'

test-vm: root setup ## the runtime's tests and a run of the engine on cgroup version 2 with systemd, in a virtual machine; results in integration/results
	@integration/vm/test

test-reference: root setup ## the end-to-end tests against the dockerd of ../shared/lab, to check the tests themselves
	ENGINE=$(CURDIR)/integration/engines/dockerd cargo nextest run -p wherry-tests -E 'not test(/^(kill|netkill|outage|nftables)::/)'

kill-test: root setup build ## the engine is killed under load, N times in a row (N=20); the counts go to integration/results
	@integration/kill-test.sh $(N)

.PHONY: net-kill-test dns-churn
net-kill-test: root setup build ## netd and the engine are killed NET_KILLS=50 times under traffic and churn; to integration/results
	@integration/net-kill-test.sh $(or $(NET_KILLS),50)

dns-churn: root setup ## LOOKUPS=1000000 lookups of names while containers come and go, each checked; to integration/results
	@integration/dns-churn.sh $(or $(LOOKUPS),1000000)

.PHONY: net-start
net-start: root setup ## netd starts again beside CONTAINERS=400 containers, and changes no rule; to integration/results
	@integration/net-start.sh $(or $(CONTAINERS),400)

fuzz: root setup ## the fuzz targets, each for SECONDS=600 (TARGETS="layer config" runs some); figures go to integration/results
	@integration/fuzz.sh $(or $(SECONDS),600)

.PHONY: crash-test
crash-test: root setup build ## the image store after KILLS=100 kills and CUTS=30 power cuts, and on a full disk; to integration/results
	@integration/crash-test.sh $(KILLS) $(CUTS)

.PHONY: compare-builds
compare-builds: root setup build ## build integration/dockerfiles with ENGINE and with the dockerd of ../shared/lab, compare the images; to integration/results (T=… some)
	@cargo run -q -p wherry-compare -- $(T)

lint: setup ## format, clippy, dependencies, sources
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --locked -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc -q --workspace --no-deps --locked
	cargo test -q --doc -p wherry-runtime
	@# the fuzz targets are no part of the workspace; nothing is linked, so libFuzzer's own code need not be compiled
	CUSTOM_LIBFUZZER_PATH=/none/libfuzzer.a cargo check -q --manifest-path integration/fuzz/Cargo.toml --target-dir target --locked
	@.ci/check-dependencies
	@.ci/check-source

fmt: ## format all code
	cargo fmt --all

bench: root setup build ## measure beside dockerd and podman of ../shared/lab, if there; the numbers go to integration/results
	@cargo run -q --release -p wherry-bench

conformance-runtime: root setup ## runc's, crun's and youki's own tests against wherry-runtime, in ../shared/lab; the counts go to integration/results
	@.ci/static-runtime
	@for suite in runc crun contest; do integration/conformance/$$suite.sh target/release/wherry-runtime; done

.PHONY: bench-images
bench-images: root setup build ## measure pull, load, save, rmi beside dockerd and podman of ../shared/lab; to integration/results
	@cargo run -q --release -p wherry-bench --bin wherry-bench-images

.PHONY: bench-network
bench-network: root setup build ## measure networks beside dockerd and podman of ../shared/lab; to integration/results (BENCH_ROUNDS=15)
	@cargo run -q --release -p wherry-bench --bin wherry-bench-network

.PHONY: bench-containers
bench-containers: root setup build ## measure lifecycle, crowds, logs and start-up beside dockerd and podman of ../shared/lab; to integration/results
	@cargo run -q --release -p wherry-bench --bin wherry-bench-containers

.PHONY: bench-build
bench-build: root setup build ## measure docker build beside the dockerd (BuildKit, classic) of ../shared/lab; to integration/results (BENCH_ROUNDS=10 BENCH_FILES=20000)
	@cargo run -q --release -p wherry-bench --bin wherry-bench-build

.PHONY: bench-runtime
bench-runtime: root setup ## measure wherry-runtime beside crun, runc and youki; the numbers go to integration/results (BENCH_ROUNDS=100)
	cargo build --release -p wherry-bench --bin wherry-bench-runtime
	@.ci/static-runtime
	@target/release/wherry-bench-runtime

test-runtime-guests: root setup ## wherry-runtime in runc's place under the dockerd, containerd and Podman of ../shared/lab
	@.ci/static-runtime
	integration/conformance/guests.sh target/release/wherry-runtime

.PHONY: test-abuse
test-abuse: root setup build ## bad input, clients that vanish and crowds, ABUSE=20 times as long as in the suite
	ABUSE=$(or $(ABUSE),20) cargo nextest run -p wherry-tests -E 'test(/^abuse::/)'

.PHONY: test-docker-py
test-docker-py: root setup build ## docker-py's own tests against ENGINE; DOCKER_PY=FOLDER has its sources (tag 7.1.0); to integration/results
	@integration/conformance/docker-py.sh "$(DOCKER_PY)"

acceptance: root setup build ## run ../shared/acceptance against ENGINE (SCRIPTS="01 04 05")
	@[ -x $(ACCEPTANCE)/run-all.sh ] || { echo "make acceptance: there are no scripts in $(ACCEPTANCE)" >&2; exit 1; }
	$(ACCEPTANCE)/run-all.sh $(ENGINE) $(SCRIPTS)

install: build ## copy the programs to PREFIX/bin (PREFIX=/usr/local)
	install -D -m 755 -t $(DESTDIR)$(or $(PREFIX),/usr/local)/bin target/release/wherryd target/release/wherry-netd \
	  target/release/wherry-runtime target/release/wherry-monitor

clean: ## remove what was built
	cargo clean

.PHONY: root
root:
	@[ "$$(id -u)" = 0 ] || { echo "this needs root: it makes namespaces, mounts and cgroups" >&2; exit 1; }
