# `make run` guards this host, `make test` proves the program: both do all set-up by themselves.
SHELL := /bin/bash
# Debian's own Python where there is one: it is built for speed, a python3 earlier in PATH often is not.
PYTHON ?= $(firstword $(wildcard /usr/bin/python3.1[1-9]) python3)
BIN := .venv/bin
LOCKED := flock .venv/pyvenv.cfg
PIP := $(BIN)/python -m pip install --disable-pip-version-check --no-input --quiet
# Without resolution: a lock is complete, and pip 23 would look past it for `coverage[toml]` once a newer coverage is out.
PINNED := --require-hashes --no-deps --only-binary :all: --requirement
SOURCES := pyproject.toml hatch_build.py README.md $(shell find guard exporters -type f -not -name '*.pyc')

.PHONY: run test server-test docker-test e2e quick check bench demo stack install clean lock setup system
.DELETE_ON_ERROR:

run: setup ## guard this host; without the right to use nftables, only observe
	@export MAILWARD_FIREWALL__BACKEND MAILWARD_STORE__URL; \
	$(BIN)/python -P -c 'import sys; from guard.firewall.permission import missing_capability as m; sys.exit(m())' \
	|| { MAILWARD_FIREWALL__BACKEND=none; printf '\n*** MAILWARD ONLY OBSERVES: it decides and shows, but BANS NOBODY (see the line above) ***\n\n' >&2; }; \
	[ "$$(id -u)" = 0 ] || { mkdir -p .state; MAILWARD_STORE__URL="sqlite://$(CURDIR)/.state/state.db"; }; \
	[ -n "$$MAILWARD_FIREWALL__BACKEND" ] || unset MAILWARD_FIREWALL__BACKEND; \
	[ -n "$$MAILWARD_STORE__URL" ] || unset MAILWARD_STORE__URL; \
	unset MAILWARD_COMPILE; exec $(BIN)/mailward run

test: setup check ## style, types, imports; what counts, on the compiled core; every test, on the sources
	@MAILWARD_TEST_INSTALLED=1 $(BIN)/python -m pytest -rs $(TOGETHER) tests/replay tests/properties tests/test_cut.py tests/test_bounded.py
	@$(BIN)/python -m pytest -rs $(TOGETHER) -m 'not docker and not servers and not e2e'
# More than half of the time tests wait for a kernel, a server or a daemon.
TOGETHER := -n 5

server-test: system .venv/.dev ## sources and fleets against real servers: Redis, journald, rsyslog, syslog-ng, Dovecot
	@$(BIN)/python -m pytest -rs $(TOGETHER) -m 'servers and not docker and not e2e'

docker-test: system .venv/.dev ## a ban against ports that Docker publishes: a real engine, a real container
	@.ci/docker
	@$(BIN)/python -m pytest -rs -m docker

e2e: system .venv/.dev ## the whole stack of compose.yaml, attacked, from 198.51.100.0/24 and 2001:db8:e2e::/48: needs root
	@.ci/engine >/dev/null
	@$(BIN)/python -m pytest -rs -p no:randomly -m e2e tests/e2e; code=$$?; .ci/engine stop; exit $$code

quick: .venv/.dev ## the tests that need no root, on the checkout, until the first failure
	@$(BIN)/python -m pytest -x -q -m 'not system'

check: .venv/.dev ## style, types, imports
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check
	@$(BIN)/mypy
	@$(BIN)/lint-imports

bench: setup ## figures, each against a baseline measured in the same run
	@set -e; for script in benchmarks/[a-z]*.py; do echo "== $$script"; $(BIN)/python "$$script"; done

demo: setup ## a captured attack and its end, in two network namespaces; the host's firewall stays as it is
	@$(BIN)/python demo/attack.py

stack: ## bring up the mail stack of compose.yaml; needs .env (cp .env.example .env)
	@docker compose version >/dev/null || { echo 'docker compose is missing: install Docker Engine and its compose plugin' >&2; exit 3; }
	@[ -f .env ] || { echo 'there is no .env: cp .env.example .env, and set MAIL_HOSTNAME and MAIL_DOMAIN in it' >&2; exit 2; }
	@docker compose config --quiet
	@docker compose up --detach --build
	@echo 'waiting until every service is healthy, at most 10 minutes ...'
	@for n in $$(seq 120); do \
		bad=$$(docker compose ps --all --format '{{.Service}} {{.State}} {{.Health}} {{.ExitCode}}' \
			| awk '!($$2 == "exited" && $$NF == 0) && !($$2 == "running" && $$3 !~ /starting|unhealthy/) { print $$1 }'); \
		[ -n "$$bad" ] || break; sleep 5; \
	done; [ -z "$$bad" ] || { echo "not healthy:" $$bad "(docker compose logs NAME)" >&2; exit 3; }
	@docker compose logs --no-log-prefix provision | grep -o 'first mailbox: .*' | tail -1 # compose may begin a line with an escape
	@docker compose run --rm --no-deps -T --entrypoint sh setup -c \
		'echo "webmail: https://$$MAIL_HOSTNAME/"; echo "publish in DNS, beside the addresses of $$MAIL_HOSTNAME:"; \
		exec python3 -s /opt/setup/administration.py dns "$$MAIL_DOMAIN"'

install: setup ## for good, as root: into PREFIX, with a user and a systemd unit of its own
	@$(PYTHON) -m venv $(PREFIX)
	@$(PREFIX)/bin/python -m pip install --disable-pip-version-check --no-input --quiet $(PINNED) requirements.txt
	@$(PREFIX)/bin/python -m pip install --disable-pip-version-check --no-input --quiet \
		--no-deps --no-index --force-reinstall .build/dist/mailward-*.whl
	@install -D -m 644 packaging/mailward.sysusers /etc/sysusers.d/mailward.conf && systemd-sysusers
	@sed 's#/opt/mailward/#$(PREFIX)/#' packaging/mailward.service > /etc/systemd/system/mailward.service
	@systemctl daemon-reload && echo "installed; start it: systemctl enable --now mailward"
PREFIX := /opt/mailward

clean: ## forget all that was built, and the state of a `make run` without root
	rm -rf .venv .build .state .*_cache .hypothesis htmlcov .coverage*

lock: ## pin again what pyproject.toml asks for
	$(PYTHON) -m venv .build/uv && .build/uv/bin/python -m pip install --quiet uv==0.13.9
	$(UV) --group build --output-file requirements.txt
	$(UV) --group dev --constraint requirements.txt --output-file requirements-dev.txt
UV := .build/uv/bin/uv pip compile pyproject.toml --extra redis --extra docker --extra geo --universal --python-version 3.11 \
	--generate-hashes --no-header --upgrade --quiet

# ---------------------------------------------------------------------------------------------- set-up, once

setup: system .venv/.package
test check quick: .venv/.dev

system:
	@.ci/system $(PYTHON)

.venv/pyvenv.cfg: | system
	@echo "making .venv ..."
	@$(PYTHON) -m venv .venv

.venv/.runtime: requirements.txt | .venv/pyvenv.cfg
	@echo "installing what $< pins ..."
	@$(LOCKED) $(PIP) $(PINNED) $< && touch $@

# python-iptables comes as source alone; it is built with what requirements.txt pins.
.venv/.dev: requirements-dev.txt .venv/.runtime
	@echo "installing what $< pins ..."
	@$(LOCKED) $(PIP) $(PINNED) $< --no-binary python-iptables --no-build-isolation --use-pep517 && touch $@

# Without build isolation: what builds the wheel is what requirements.txt pins.
.venv/.package: $(SOURCES) .venv/.runtime
	@echo "building mailward ..."
	@exec 9<.venv/pyvenv.cfg && flock 9 && touch .venv/.began && rm -rf .build/dist \
	&& $(BIN)/python -m hatchling build --target wheel --directory .build/dist >/dev/null \
	&& $(PIP) --no-deps --no-index --force-reinstall .build/dist/mailward-*.whl && mv .venv/.began $@
	@$(BIN)/python -P -c 'import guard.model as m; print("mailward is installed, its core", "pure Python" if m.__file__.endswith(".py") else "compiled")'
