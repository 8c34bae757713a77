# SPDX-License-Identifier: Apache-2.0
# Front door. `make help` lists what there is.
SHELL := /bin/bash
B ?= build
CMAKE_FLAGS ?=
KERNELS ?= 6.1 6.12

.PHONY: all
all: deps $(B)/build.ninja  ## build the programs into build/
	@nice ninja -C $(B)

$(B)/build.ninja:
	@cmake -S . -B $(B) -G Ninja $(CMAKE_FLAGS) >/dev/null

.PHONY: help
help:  ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-12s %s\n", $$1, $$2}' Makefile

.PHONY: deps
deps:  ## install the Debian packages that are missing
	@scripts/deps.sh

.PHONY: kmod
kmod: deps  ## build one module: make kmod KDIR=/lib/modules/VERSION/build
	@test -n "$(KDIR)" || { echo "make kmod: say for which kernel: KDIR=/lib/modules/VERSION/build" >&2; exit 2; }
	@$(MAKE) -C kmod KDIR="$(KDIR)"

.PHONY: deb
deb: all  ## Debian packages into build/deb/
	@packaging/build-deb $(B)

.PHONY: rpm
rpm: all  ## RPM packages into build/rpm/, of the libraries of this machine
	@packaging/build-rpm $(B)

PREFIX ?= /usr/local
.PHONY: install
install: all  ## install programs and manual pages: make install [PREFIX=/usr/local] [DESTDIR=]
	@install -d $(DESTDIR)$(PREFIX)/bin $(DESTDIR)$(PREFIX)/sbin
	@install -s -m 755 $(B)/blkferry $(DESTDIR)$(PREFIX)/bin/
	@install -s -m 755 $(B)/blkferry-agent $(B)/blkferry-server $(DESTDIR)$(PREFIX)/sbin/
	@for page in docs/man/*; do install -D -m 644 $$page $(DESTDIR)$(PREFIX)/share/man/man$${page##*.}/$${page##*/}; done

.PHONY: test
test: deps  ## everything that CI runs; last line: N passed, N failed, N skipped
	@python3 tests/suites.py

.PHONY: test-unit
test-unit: deps  ## unit tests only
	@python3 tests/suites.py unit

.PHONY: test-e2e
test-e2e: deps  ## agent, server and a user-space ring producer, natively
	@python3 tests/suites.py e2e

.PHONY: test-sim
test-sim: deps  ## agent and server in virtual time, by seeds: make test-sim MINUTES=60 SEED=5000000
	@SIM_SECONDS=$$(( $(or $(MINUTES),1) * 60 )) SIM_SEED=$(or $(SEED),1) python3 tests/suites.py sim

.PHONY: test-faults
test-faults: deps  ## the fault suite at length (hours): make test-faults SCALE=80; figures in build/faults.json
	@BLKFERRY_FAULT_SCALE=$(or $(SCALE),80) python3 tests/suites.py faults

.PHONY: test-vm
test-vm: deps  ## guests with the real module: make test-vm KERNEL=name|package|image CASES=pattern (or KERNELS="6.1 6.12")
	@KERNELS="$(or $(KERNEL),$(KERNELS))" CASES="$(CASES)" python3 tests/suites.py kmod vm

.PHONY: test-packages
test-packages: deps  ## the packages installed, booted, upgraded and purged in a Debian guest (long)
	@python3 tests/suites.py packages installed

.PHONY: kernels
kernels: deps  ## build the module for every kernel of the table, run its guests, write docs/KERNELS.md (hours): make kernels KERNEL="5.10 7.2" CASES=kmod
	@scripts/deps.sh gcc-aarch64-linux-gnu
	@tests/vm/kernel-table $(KERNEL) $(if $(CASES),--cases $(CASES))

.PHONY: debug-kernel
debug-kernel: deps  ## build a kernel with sanitizers for guests (long): make debug-kernel VARIANT=kasan|kcsan
	@tests/vm/debug-kernel/build $(or $(VARIANT),kasan)

.PHONY: fuzz
fuzz: deps  ## fuzz every decoder: make fuzz SECONDS_EACH=60
	@tests/fuzz/run.sh $(or $(SECONDS_EACH),60)

.PHONY: bench
bench: deps  ## measure; writes build/bench.json
	@bench/run

.PHONY: demo
demo: deps  ## replicate a live guest and prove the recovery point equal
	@tests/demo/run

.PHONY: lint
lint: deps  ## shellcheck, cppcheck and licence lines
	@python3 tests/suites.py lint

.PHONY: clean
clean:  ## remove what was built
	@rm -rf build build-*
