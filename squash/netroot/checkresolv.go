package netroot

import (
	"strings"

	"github.com/seed-3ec230fa/diskless/squash"
)

// resolver is a unit for what nobody else does: initramfs-tools leaves what DHCP
// said in /run/net-*.conf. Where that is no server the former ones are better
// than none. systemd has $$ for a dollar sign.
const resolver = `[Unit]
Description=Name servers that the initramfs was given
DefaultDependencies=no
Before=sysinit.target network-pre.target nss-lookup.target

[Service]
Type=oneshot
RemainAfterExit=yes
EnvironmentFile=-/run/net-*.conf
ExecStart=/bin/sh -c 'for server in $$IPV4DNS0 $$IPV4DNS1; do [ $$server = 0.0.0.0 ] || echo nameserver $$server; done >/run/resolv.conf; if [ ! -s /run/resolv.conf ]; then cat /etc/resolv.conf.built >/run/resolv.conf; elif [ -n "$$DNSDOMAIN" ]; then echo search "$$DNSDOMAIN" >>/run/resolv.conf; fi'
`

func (c *checker) resolvConf() {
	f := c.files["etc/resolv.conf"]
	if f == nil || !f.Mode.IsRegular() || !strings.Contains(f.text, "nameserver") {
		return
	}
	var rules *squash.Rules
	remedy := "write the servers of the machines' network to it, or let what the initrd got by DHCP fill it"
	switch {
	case c.get("lib/systemd/systemd-resolved") != nil, c.get("usr/lib/systemd/systemd-resolved") != nil:
		rules, remedy = link(f.Path, "../run/systemd/resolve/stub-resolv.conf"), "make it the link that systemd-resolved wants"
	case c.systemd() && c.initramfsTools:
		former := rewritten(f, f.text)
		former.Put[0].Path += ".built"
		rules = &squash.Rules{Put: []*squash.Entry{
			former.Put[0],
			squash.NewFile("etc/systemd/system/diskless-resolv.service", 0o644, []byte(resolver)),
			link("etc/systemd/system/sysinit.target.wants/diskless-resolv.service", "../diskless-resolv.service").Put[0],
			link(f.Path, "../run/resolv.conf").Put[0],
		}}
		remedy = "make it a link to /run/resolv.conf, which a unit fills with what the initrd got by DHCP (with these servers if that is none)"
	}
	c.found("resolv.conf", f.Path, Harmful, rules, remedy, "it names the servers of the machine that built the tree")
}
