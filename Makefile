# make build | test | race | lint | fuzz | bench | lab
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:

GO      ?= go
VERSION := $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
LDFLAGS := -s -w -X nines/internal/cli.version=$(VERSION)
# The lab tests' own lab: it never meets one that a person runs.
E2E_LAB ?= e2e
STATICCHECK := honnef.co/go/tools/cmd/staticcheck@v0.7.0
# Says once more at the end which tests failed, and why.
GOTESTSUM := gotest.tools/gotestsum@v1.13.0

.PHONY: build test unit e2e race lint fuzz bench lab clean FORCE

build: bin/nines

bin/nines: FORCE
	@CGO_ENABLED=0 $(GO) build -trimpath -ldflags '$(LDFLAGS)' -o $@ ./cmd/nines

# What a target needs and root can install; without root it is said.
define need
	@PATH="$$PATH:/usr/sbin" command -v $(1) >/dev/null || { [ "$$(id -u)" = 0 ] || { echo "$(1) is needed: apt-get install $(2), as root"; exit 1; }; \
	  apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq -o DPkg::Lock::Timeout=300 $(2); }
endef

# The race detector needs a C compiler; tests in network namespaces need nft, those of BMCs one that speaks IPMI.
.PHONY: tools
tools:
	$(call need,gcc,gcc libc6-dev)
	$(call need,nft,nftables)
	$(call need,ipmi_sim,openipmi)

# Everything: fast tests with the race detector, then the lab with real components.
test: lint unit e2e

unit: tools
	$(GO) test -race -timeout 15m $$($(GO) list ./... | grep -v /test/e2e)

# Skipped with one clear line without root or where systemd-nspawn cannot run.
e2e: build
	$(if $(filter 0,$(shell id -u)),$(call need,curl,curl))
	NINES=$(CURDIR)/bin/nines NINES_E2E_LAB=$(E2E_LAB) $(GO) run $(GOTESTSUM) --format standard-verbose -- -count=1 -timeout 80m ./test/e2e/...

race: tools
	$(GO) test -race -count=3 $$($(GO) list ./... | grep -v /test/e2e)

lint:
	@unformatted=$$(gofmt -l cmd internal test bench 2>/dev/null); if [ -n "$$unformatted" ]; then echo "gofmt -w needed: $$unformatted"; exit 1; fi
	$(GO) vet ./...
	$(GO) run $(STATICCHECK) ./...

# Every fuzz target for a short while; a longer one: make fuzz FUZZTIME=10m
FUZZTIME ?= 10s
fuzz:
	@$(GO) list ./... | while read -r pkg; do \
	  $(GO) test -list '^Fuzz' "$$pkg" | { grep '^Fuzz' || true; } | while read -r f; do \
	    echo "== $$pkg $$f"; $(GO) test -run '^$$' -fuzz "^$$f$$" -fuzztime $(FUZZTIME) "$$pkg"; done; done

bench: build
	NINES=$(CURDIR)/bin/nines $(GO) run ./bench

# Other presets, engines of the VIP, or more runs: make bench-presets PRESETS=nines,reference+pacemaker REPEAT=5
PRESETS ?= nines,kolla,reference
REPEAT  ?= 1
.PHONY: bench-presets
bench-presets: build
	NINES=$(CURDIR)/bin/nines $(GO) run ./bench --presets $(PRESETS) --repeat $(REPEAT)

lab: build
	bin/nines lab up

clean:
	rm -rf bin
