# Two commands for a newcomer: `make boot` and `make test`. Both install the
# Debian packages they need, so they work on a fresh machine with Go and with
# root or sudo.

SHELL := /bin/bash
GO    ?= go

# What a real machine in QEMU needs.
BOOT_PACKAGES := qemu-system-x86 ipxe-qemu ovmf ipxe pxelinux syslinux-common grub-efi-amd64-signed \
	busybox-static nbd-client kmod e2fsprogs iproute2
# Peers and oracles of the tests.
TEST_PACKAGES := $(BOOT_PACKAGES) isc-dhcp-client isc-dhcp-relay klibc-utils libnbd-bin qemu-utils nbdkit nbd-server squashfs-tools squashfs-tools-ng xz-utils dnsmasq-base \
	grub-common grub-emu grub-pc-bin grub-efi-amd64-bin curl fio python3-libnbd mmdebstrap cpio zstd gcc libc6-dev tftp-hpa atftp etcd-server systemd shellcheck

SUDO := $(shell test "$$(id -u)" = 0 || echo sudo)
# Tests make network namespaces, mounts and device nodes: as root.
EXEC := $(if $(SUDO),-exec "sudo -E env PATH=$$PATH:/usr/sbin:/sbin",)

STATICCHECK := honnef.co/go/tools/cmd/staticcheck@v0.8.2

.PHONY: boot test lint build clean

boot: ## boot a real virtual machine from our services, in a network of its own
	@$(call install,$(BOOT_PACKAGES))
	$(GO) build -o bin/diskless ./cmd/diskless
	$(SUDO) ./bin/diskless demo --vm=pxe

test: ## everything: lint, unit tests, interoperability, real boots; no skips
	@$(call install,$(TEST_PACKAGES))
	@$(MAKE) --no-print-directory lint
	DISKLESS_REQUIRE=all $(GO) test -race -timeout 40m $(EXEC) ./...

lint:
	@out=$$(gofmt -l .); test -z "$$out" || { echo "gofmt would change: $$out"; exit 1; }
	$(GO) vet ./...
	$(GO) run $(STATICCHECK) ./...

build: ## the binary, in bin/
	$(GO) build -o bin/diskless ./cmd/diskless

clean:
	rm -rf bin

# install: the packages that are missing. The package lists are needed besides,
# for the kernel that virtual machines boot is fetched by apt, not installed.
define install
ls /var/lib/apt/lists/*_Packages* >/dev/null 2>&1 || $(SUDO) apt-get update -qq; \
missing=$$(for p in $(1); do dpkg-query -W -f='$${db:Status-Status}\n' $$p 2>/dev/null | grep -qx installed || echo $$p; done); \
if [ -n "$$missing" ]; then \
	echo "installing:" $$missing; \
	log=$$(mktemp); \
	{ $(SUDO) apt-get update && DEBIAN_FRONTEND=noninteractive $(SUDO) apt-get install -y --no-install-recommends $$missing; } >$$log 2>&1 \
		|| { tail -n 20 $$log; exit 1; }; \
	rm -f $$log; \
fi
endef
