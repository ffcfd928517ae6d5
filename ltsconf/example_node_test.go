package ltsconf_test

import (
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"strings"

	"github.com/seed-3ec230fa/diskless/ltsconf"
)

// A Kubernetes node's file: what is kept running, what happens before init,
// what is mounted, and how the node joins. The join token is in the section of
// the one machine that it is for.
func Example_kubernetesNode() {
	mount, _ := ltsconf.Mount{Source: "10.0.0.1:/srv/data", Target: "/data", Type: "nfs", Options: []string{"vers=4.2"}}.Line()
	hosts, _ := ltsconf.HostsLine(netip.MustParseAddr("10.0.0.1"), "api.cluster")
	all := ltsconf.Settings{{Name: "KEEP_SYSTEM_SERVICES", Value: ltsconf.Literal("containerd kubelet ssh")}}
	for _, l := range []struct {
		family ltsconf.Family
		n      int
		name   string
		line   string
	}{
		{ltsconf.Preinit, 1, "MACHINE_ID", "rm -f /etc/machine-id; systemd-machine-id-setup"},
		{ltsconf.Preinit, 2, "IMAGES", ltsconf.Command("mkdir", "-p", "/var/lib/container images")},
		{ltsconf.Fstab, 1, "DATA", mount},
		{ltsconf.Hosts, 1, "API", hosts},
		{ltsconf.RCFile, 1, "MODULES", "modprobe -a br_netfilter overlay"},
		{ltsconf.RCFile, 2, "FORWARD", "sysctl -w net.ipv4.ip_forward=1"},
	} {
		s, err := l.family.Setting(l.n, l.name, l.line)
		if err != nil {
			fmt.Println(err)
			return
		}
		all = append(all, s)
	}
	join, err := ltsconf.RCFile.Setting(10, "JOIN", ltsconf.Command("kubeadm", "join", "api.cluster:6443", "--token", "abcdef.0123456789abcdef"))
	if err != nil {
		fmt.Println(err)
		return
	}

	f, err := ltsconf.Parse(strings.NewReader("# Nodes of the cluster.\n"))
	if err != nil {
		fmt.Println(err)
		return
	}
	if f, err = f.AddSection("Default", all); err != nil {
		fmt.Println(err)
		return
	}
	if f, err = f.AddSection("node-01", ltsconf.Settings{join}); err != nil {
		fmt.Println(err)
		return
	}
	for _, finding := range f.Lint() {
		fmt.Println(finding)
	}

	view, err := f.For(ltsconf.Client{Hostname: "node-01"})
	if err != nil {
		fmt.Println(err)
		return
	}
	b, _ := fs.ReadFile(view, "ltsp/amd64/lts.conf")
	fmt.Print(string(b))
	other, _ := f.For(ltsconf.Client{Hostname: "node-02"})
	b, _ = fs.ReadFile(other, "ltsp/amd64/lts.conf")
	fmt.Println("node-02 has the token:", strings.Contains(string(b), "abcdef"))
	// Output:
	// [Default]
	// KEEP_SYSTEM_SERVICES="containerd kubelet ssh"
	// PREINIT_01_MACHINE_ID="rm -f /etc/machine-id; systemd-machine-id-setup"
	// PREINIT_02_IMAGES="mkdir -p '/var/lib/container images'"
	// FSTAB_01_DATA="10.0.0.1:/srv/data /data nfs vers=4.2,nofail 0 0"
	// HOSTS_01_API="10.0.0.1 api.cluster"
	// RCFILE_01_MODULES="modprobe -a br_netfilter overlay"
	// RCFILE_02_FORWARD="sysctl -w net.ipv4.ip_forward=1"
	// RCFILE_10_JOIN="kubeadm join api.cluster:6443 --token abcdef.0123456789abcdef"
	// node-02 has the token: false
}

func ExampleFile_Set() {
	f, err := ltsconf.Parse(strings.NewReader("[Default]\n    SOUND  = True  # the hall is loud\n    VOLUME = 90\n"))
	if err != nil {
		fmt.Println(err)
		return
	}
	if f, err = f.Set("Default", "SOUND", ltsconf.Literal("False")); err != nil {
		fmt.Println(err)
		return
	}
	if f, err = f.Set("Default", "LANG", ltsconf.Literal("de_DE.UTF-8")); err != nil {
		fmt.Println(err)
		return
	}
	_, _ = f.WriteTo(os.Stdout)
	// Output:
	// [Default]
	//     SOUND  = False  # the hall is loud
	//     VOLUME = 90
	//     LANG   = de_DE.UTF-8
}

func ExampleFile_Explain() {
	f, err := ltsconf.Parse(strings.NewReader("[pc01]\nLIKE=kiosk\nSOUND=True\n[kiosk]\nSOUND=False\n[Default]\nLANG=C\n"))
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, step := range f.Explain(ltsconf.Client{Hostname: "pc01"}) {
		fmt.Println(step.Why)
		for _, s := range step.Settings {
			fmt.Printf("  %s=%s, line %d, used: %t, %q\n", s.Name, s.Value.Raw, s.Value.Line, s.Used, s.Why)
		}
	}
	// Output:
	// host name "pc01"
	//   SOUND=True, line 3, used: true, ""
	// LIKE of [pc01]
	//   SOUND=False, line 5, used: false, "overridden by [pc01]"
	// pattern for host name "pc01": none matches
	// default
	//   LANG=C, line 7, used: true, ""
}

func ExampleFile_Lint() {
	p := ltsconf.Parser{Compatible: true}
	f, err := p.Parse("lts.conf", strings.NewReader("[Default]\nSUOND=True\nLOCALDEV=1\n[00-11-25-84-ce-ba]\nLIKE=kiosks\n[kiosk]\nVOLUME=loud\n"))
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, finding := range f.Lint() {
		fmt.Println(finding)
	}
	// Output:
	// lts.conf:2:1: LTSP does not know SUOND; is it SOUND? (unknown)
	// lts.conf:3:1: LOCALDEV: "1" counts as false; only true, yes and y are true (type)
	// lts.conf:4:1: no client matches [00-11-25-84-ce-ba]: MAC addresses have colons; write [00:11:25:84:ce:ba] (dead-section)
	// lts.conf:5:6: no section [kiosks]: clients ignore this LIKE; is it [kiosk]? (like)
	// lts.conf:7:1: VOLUME: "loud" is no number (type)
}

func ExampleFamily_Of() {
	s := ltsconf.Settings{
		{Name: "FSTAB_10", Value: ltsconf.Literal("c")},
		{Name: "FSTAB_2", Value: ltsconf.Literal("b")},
		{Name: "SOUND", Value: ltsconf.Literal("True")},
		{Name: "FSTAB_01", Value: ltsconf.Literal("a")},
	}
	for _, set := range ltsconf.Fstab.Of(s) {
		fmt.Println(set.Name, set.Value.Raw)
	}
	// Output:
	// FSTAB_01 a
	// FSTAB_2 b
	// FSTAB_10 c
}

// What a client of LTSP 19 or later makes of its file.
func ExampleLTSPFile_Resolve() {
	f, err := ltsconf.ParseLTSP(strings.NewReader(`[clients]
DNS_SERVER="10.0.0.1"
KEEP_SYSTEM_SERVICES="ssh"

[00:11:25:84:ce:ba|00:11:25:84:ce:bb]
HOSTNAME=pc01

[pc*]
INCLUDE=kiosk
KEEP_SYSTEM_SERVICES="$KEEP_SYSTEM_SERVICES cups"

[kiosk]
AUTOLOGIN="pc/guest"
`))
	if err != nil {
		fmt.Println(err)
		return
	}
	c := ltsconf.LTSPClient{Client: ltsconf.Client{MAC: []byte{0x00, 0x11, 0x25, 0x84, 0xce, 0xba}}, Applet: "init"}
	for name, v := range f.Resolve(c) {
		fmt.Printf("%s=%q from [%s], line %d\n", name, v.Raw, v.Section, v.Line)
	}
	// Output:
	// DNS_SERVER="10.0.0.1" from [clients], line 2
	// KEEP_SYSTEM_SERVICES="ssh cups" from [pc*], line 10
	// HOSTNAME="pc01" from [00:11:25:84:ce:ba|00:11:25:84:ce:bb], line 6
	// AUTOLOGIN="pc/guest" from [kiosk], line 13
}

func ExampleParseLTSP() {
	_, err := ltsconf.ParseLTSP(strings.NewReader("[clients]\nKERNEL_PARAMETERS=quiet nomodeset\n"))
	fmt.Println(err)
	// Output:
	// ltsp.conf:2:1: this runs the command nomodeset; put the value in quotes
}

func ExampleSettings_WriteLTSP() {
	_, _ = ltsconf.Settings{{Name: "FSTAB_1", Value: ltsconf.Literal("server:/home /home nfs defaults,nolock,nofail 0 0")}}.WriteLTSP(os.Stdout)
	// Output:
	// [clients]
	// FSTAB_1="server:/home /home nfs defaults,nolock,nofail 0 0"
}

func ExampleCmdlineSettings() {
	for _, s := range ltsconf.CmdlineSettings("root=/dev/nbd0 nbdroot=10.0.0.1:10809/debian12 ltsp.sound=False", "") {
		fmt.Printf("%s=%s\n", s.Name, s.Value.Raw)
	}
	// Output:
	// NBD_ROOT_HOST=10.0.0.1
	// NBD_ROOT_NAME=/debian12
	// NBD_ROOT_PORT=10809
	// SOUND=False
}
