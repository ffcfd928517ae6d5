//go:build linux

package main

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
)

// lab is two network namespaces with a link between them.
type lab struct {
	server, client string
	mac            string // of the server's end
}

const (
	serverIf, clientIf     = "v0", "v1"
	serverAddr, relayAddr  = "10.0.0.1", "10.0.0.2"
	poolFirst, poolLast    = "10.1.0.0", "10.1.250.250" // 64,251 addresses, all servers'
	largeFirst, largeLast  = "10.16.0.0", "10.63.255.255"
	pools                  = "10.0.0.0/8"
	leaseSeconds, bootFile = 3600, "ipxe.efi"
)

func newLab() (*lab, error) {
	l := &lab{server: fmt.Sprintf("bds%d", os.Getpid()), client: fmt.Sprintf("bdc%d", os.Getpid())}
	for _, args := range [][]string{
		{"netns", "add", l.server}, {"netns", "add", l.client},
		{"-n", l.server, "link", "set", "lo", "up"}, {"-n", l.client, "link", "set", "lo", "up"},
		{"-n", l.server, "link", "add", serverIf, "type", "veth", "peer", "name", clientIf, "netns", l.client},
		{"-n", l.server, "addr", "add", serverAddr + "/8", "brd", "+", "dev", serverIf},
		{"-n", l.client, "addr", "add", relayAddr + "/8", "brd", "+", "dev", clientIf},
		{"-n", l.server, "link", "set", serverIf, "up"}, {"-n", l.client, "link", "set", clientIf, "up"},
		// The clients' kernel answers ARP for the addresses that are given.
		{"-n", l.client, "route", "add", "local", "10.1.0.0/16", "dev", "lo"},
		{"-n", l.client, "route", "add", "local", "10.16.0.0/12", "dev", "lo"},
	} {
		if out, err := exec.Command("ip", args...).CombinedOutput(); err != nil {
			l.close()
			return nil, fmt.Errorf("ip %v: %w: %s", args, err, out)
		}
	}
	mac, err := exec.Command("ip", "netns", "exec", l.server, "cat", "/sys/class/net/"+serverIf+"/address").Output()
	if err != nil {
		l.close()
		return nil, err
	}
	l.mac = strings.TrimSpace(string(mac))
	return l, nil
}

func (l *lab) close() {
	for _, ns := range []string{l.server, l.client} {
		_ = exec.Command("ip", "netns", "del", ns).Run()
	}
}
