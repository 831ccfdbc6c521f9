# Tulle's one command surface. Every target says what it does, can be run again, and installs what it needs (`setup`).

PYTHON ?= python3
STACK ?= local
CONTEXT ?=
REGISTRY ?=
ENGINE ?= buildah
ARCHIVE ?=
CLUSTER ?=
VERSION ?=
DRY ?=
# The images that nodes are told to run: on the local cluster what it was given, elsewhere what was pushed. Empty leaves
# it to the stack's own configuration.
REFS ?= $(if $(CONTEXT),build/images-pushed.json,build/images.json)
VENV := .venv
BIN := $(VENV)/bin
DEPLOY := $(BIN)/tulle
WHERE := --stack $(STACK) $(if $(CONTEXT),--context $(CONTEXT))
CACHE := $(or $(TULLE_CACHE),$(or $(XDG_CACHE_HOME),$(HOME)/.cache)/tulle)
# Ansible's own folders are in the cache too, instead of in three places of the home folder.
PLAYBOOK := ANSIBLE_CONFIG=ansible/ansible.cfg ANSIBLE_HOME=$(CACHE)/ansible ANSIBLE_REMOTE_TEMP=$(CACHE)/ansible/tmp \
	ANSIBLE_ASYNC_DIR=$(CACHE)/ansible/async $(BIN)/ansible-playbook
SETTINGS := ansible/roles/cluster/defaults/main.yml
SOURCES := $(shell find proxy -name '*.pyx' -o -name '*.pxd' 2>/dev/null) pyproject.toml

.DEFAULT_GOAL := help
.PHONY: help setup packages up cluster images pushed deploy proof down test check iac-check ansible-test fuzz sanitize bench soak push release version lock proto clean

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 12

setup: packages $(VENV)/.locked $(VENV)/.policies $(VENV)/.built ## install what is missing: system packages, Python environment, compiled proxy

packages:
	@PYTHON=$(PYTHON) ansible/files/packages.sh

$(VENV)/.locked: requirements.lock
	@echo "setup: Python environment from requirements.lock"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@sed -n '/^uv==/,/^[a-z]/p' requirements.lock | sed '$$d' > $(VENV)/uv.lock
	@$(BIN)/pip install --quiet --require-hashes -r $(VENV)/uv.lock
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --require-hashes -r requirements.lock
	@touch $@

# pulumi-policy needs another protobuf than the rest, so the policy pack has an environment of its own.
$(VENV)/.policies: $(VENV)/.locked policies/requirements.lock
	@$(BIN)/uv venv --quiet --clear --python $(BIN)/python $(VENV)/policies
	@$(BIN)/uv pip install --quiet --python $(VENV)/policies/bin/python --require-hashes -r policies/requirements.lock
	@touch $@

$(VENV)/.built: $(VENV)/.locked $(SOURCES)
	@echo "setup: compiling the proxy"
	@CFLAGS="$${CFLAGS--g0}" $(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation --editable .
	@touch $@

up: setup $(if $(CONTEXT),$(if $(REGISTRY),push) pushed,cluster images) deploy proof ## a Kubernetes (unless CONTEXT= names one), the mesh, a demo, and the proof that it works

cluster: setup ## the local single-node Kubernetes alone; CLUSTER="cluster_port_api=7443 ..." sets it up otherwise, and is remembered
	@for each in $(CLUSTER); do grep -q "^$${each%%=*}: " $(SETTINGS) && test "$${each#*=}" != "$$each" || \
		{ echo "cluster: '$$each' in CLUSTER is no NAME=VALUE with a name of $(SETTINGS)" >&2; exit 2; }; done
	@$(PLAYBOOK) ansible/playbooks/site.yml $(if $(CLUSTER),-e "$(CLUSTER)")

images: setup ## build the images and load them into the local cluster; ENGINE=docker|podman builds there, ARCHIVE=FILE writes a file
	@$(PLAYBOOK) ansible/playbooks/images.yml -e images_engine=$(ENGINE) $(if $(ARCHIVE),-e images_archive=$(abspath $(ARCHIVE)))
	@test -z "$(ARCHIVE)" || echo "images: all in $(ARCHIVE); load it into the nodes, then: $(DEPLOY) up --stack dev --context NAME -c images.refs=@build/images.json"

pushed: # nodes elsewhere cannot pull what is only on this machine: better said now than by each of them
	@test -z "$(REFS)" || test -s "$(REFS)" || { echo "up: nothing was pushed that the nodes of $(CONTEXT) could pull: there is no $(REFS)." >&2; \
		echo "  make up CONTEXT=$(CONTEXT) REGISTRY=registry.example/tulle pushes the images first;" >&2; \
		echo "  REFS=build/images.json takes those that you loaded into its nodes, REFS= those that the stack names." >&2; exit 2; }

deploy: setup
	@$(DEPLOY) up $(WHERE) --yes $(if $(REFS),-c images.refs=@$(REFS))

proof: setup
	@$(DEPLOY) check $(if $(CONTEXT),--context $(CONTEXT)) --wait 180s
	@$(if $(filter local,$(STACK)),$(DEPLOY) stat deploy -n demo $(if $(CONTEXT),--context $(CONTEXT)) --wait 120s)

down: setup ## remove the mesh; without CONTEXT= also the local cluster, and nothing else
	@$(if $(CONTEXT),$(DEPLOY) down $(WHERE) --yes,$(PLAYBOOK) ansible/playbooks/reset.yml)

check: setup ## linters, types, layers, architecture
	@$(BIN)/python -m tests.check

iac-check: setup ## the stack alone: lint, types, layers, schema, mocks, policies, the embedded deployer
	@$(BIN)/python -m tests.check ruff mypy import-linter yamllint architecture
	@command -v pulumi >/dev/null || echo "iac-check: pulumi is not on PATH; the embedded deployer alone is tried"
	@$(BIN)/python -m pytest -q $(SHARED) tests/iac tests/policies

# Three processes share the files of a suite.
SHARED := -n3 --dist=loadfile
# Left to `make test`: what builds images, or a whole cluster.
LONG_PLAYS := tests/ansible/test_cluster.py tests/ansible/test_registry.py tests/ansible/test_containerfile.py
# Whole lives of roles: begun first, so that no process is left alone with one at the end.
LIVES := $(patsubst %,tests/ansible/test_%.py,proxy_host node cni proxy_host_undone proxy_host_refusals node_firewalls playbooks)

ansible-test: setup ## the collection alone: lint, syntax, refusals, and roles on copy-on-write machines of their own
	@$(BIN)/python -m tests.check yamllint ansible-lint & lint=$$!; \
	$(BIN)/python -m pytest -q $(SHARED) --no-loadscope-reorder $(LIVES) \
		$(filter-out $(LONG_PLAYS) $(LIVES),$(wildcard tests/ansible/test_*.py)); tests=$$?; \
	wait $$lint && exit $$tests

test: setup ## everything: check, unit, wire, mesh, iac, ansible, and end to end on a real cluster as root
	@$(BIN)/python -m tests.run

fuzz: setup ## search for bytes that break a parser: FUZZ_SECONDS=600 in all, TARGET= for one of them
	@FUZZ_SECONDS=$(FUZZ_SECONDS) $(BIN)/python -m tests.fuzz $(TARGET)

sanitize: setup ## the compiled proxy (MODULES=proxy.wire: a part) under AddressSanitizer and UndefinedBehaviorSanitizer
	@MODULES=$(MODULES) $(BIN)/python -m tests.sanitize

bench: cluster images ## the proxy, from its image, beside Envoy; writes build/bench.json
	@$(BIN)/python -m tests.bench

soak: cluster images ## ten minutes (SOAK_MINUTES=) at half of saturation, endpoints churning; nothing may fail or grow
	@$(BIN)/python -m tests.bench.soak

push: setup ## build the images and push them: make push REGISTRY=registry.example/tulle
	@test -n "$(REGISTRY)" || { echo "push: say where to: make push REGISTRY=registry.example/tulle" >&2; exit 2; }
	@$(PLAYBOOK) ansible/playbooks/images.yml -e images_engine=$(ENGINE) -e images_registry=$(REGISTRY)
	@echo "push: the digests are in build/images-pushed.json; next:"
	@echo "  $(DEPLOY) up --stack $(if $(filter local,$(STACK)),dev,$(STACK)) --context $(or $(CONTEXT),NAME) -c images.refs=@build/images-pushed.json"

release: setup ## build what users get from the tag vVERSION into dist/: REGISTRY= is where its images will be, DRY=1 needs no tag
	@PYTHONPATH=.ci $(BIN)/python -m release --version "$(VERSION)" --registry "$(REGISTRY)" $(if $(DRY),--dry)

version: setup ## write VERSION= into every file that repeats it, and make its section of CHANGELOG.md
	@test -n "$(VERSION)" || { echo "version: say which: make version VERSION=0.2.0" >&2; exit 2; }
	@PYTHONPATH=.ci $(BIN)/python -m release --stamp --version "$(VERSION)"

lock: ## resolve both requirements.lock anew
	@$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --all-extras --generate-hashes \
		--no-emit-index-url --no-header pyproject.toml -o requirements.lock
	@$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
		--no-emit-index-url --no-header policies/requirements.in -o policies/requirements.lock

proto: setup ## regenerate the code of proxy/api/*.proto
	@$(BIN)/python -m grpc_tools.protoc -I. --python_out=. --pyi_out=. --grpc_python_out=. proxy/api/*.proto

clean: ## remove what was built in this folder
	@rm -rf build $(VENV) *.egg-info; find proxy -name '*.so' -delete; find proxy -name '*.c' -delete
