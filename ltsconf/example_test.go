package ltsconf_test

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing/fstest"

	"github.com/seed-3ec230fa/diskless/ltsconf"
)

const site = `# One file for the whole site.
[Default]
    SOUND     = True
    XKBLAYOUT = "us,ru"
    SCREEN_07 = ldm

[kiosk]
    SCREEN_07 = kiosk
    SOUND     = NONE

[hall-*]
    LIKE        = kiosk
    SYSLOG_HOST = 192.168.67.1

[00:11:25:84:CE:BA]
    XKBLAYOUT = de
`

func ExampleFile_Resolve() {
	f, err := ltsconf.Parse(strings.NewReader(site))
	if err != nil {
		fmt.Println(err)
		return
	}
	mac, _ := net.ParseMAC("00:11:25:84:ce:ba")
	c := ltsconf.Client{Hostname: "hall-3", IP: netip.MustParseAddr("192.168.67.23"), MAC: mac}
	for name, v := range f.Resolve(c) {
		fmt.Printf("%s=%q from [%s], line %d\n", name, v.Raw, v.Section, v.Line)
	}
	// Output:
	// XKBLAYOUT="de" from [00:11:25:84:CE:BA], line 16
	// SCREEN_07="kiosk" from [kiosk], line 8
	// SYSLOG_HOST="192.168.67.1" from [hall-*], line 13
}

func ExampleParse() {
	_, err := ltsconf.Parse(strings.NewReader("[Default]\nXKBLAYOUT=us\nLDM_GREETING=don't panic\n"))
	var syntax *ltsconf.SyntaxError
	fmt.Println(errors.As(err, &syntax), err)
	// Output:
	// true lts.conf:3:17: a single quote means nothing here and stops clients; put the value in double quotes
}

// What clients make of a file with a mistake in it.
func ExampleParser() {
	p := ltsconf.Parser{Compatible: true}
	f, err := p.Parse("lts.conf", strings.NewReader("[Default]\nA=1\nB=x=y\n\n[pc01]\nC=3\n"))
	if err != nil {
		fmt.Println(err)
		return
	}
	for name, v := range f.Resolve(ltsconf.Client{Hostname: "pc01"}) {
		fmt.Printf("%s=%s\n", name, v.Raw)
	}
	for _, problem := range f.Problems() {
		fmt.Println(problem)
	}
	// Output:
	// A=1
	// B=x
	// lts.conf:3:4: a second = on this line: put the value in double quotes, and each setting on its own line
}

// A Kubernetes node's file: what runs before init, what is mounted, and what
// runs at the end of the boot. Values with quotes, dollars and the like are
// escaped, so that the node's shell sees them as they are here.
func ExampleSettings_WriteTo() {
	node := ltsconf.Settings{
		{Name: "KEEP_SYSTEM_SERVICES", Value: ltsconf.Literal("containerd kubelet")},
		{Name: "PREINIT_01_HOSTS", Value: ltsconf.Literal(`echo "10.0.0.1 api" >> /etc/hosts`)},
		{Name: "FSTAB_01_DATA", Value: ltsconf.Literal("10.0.0.1:/data /data nfs defaults,nofail 0 0")},
		{Name: "RCFILE_01_MODULES", Value: ltsconf.Literal("modprobe br_netfilter")},
		{Name: "RCFILE_02_JOIN", Value: ltsconf.Literal("kubeadm join --token $(cat /run/token) api:6443")},
	}
	if _, err := node.WriteTo(os.Stdout); err != nil {
		fmt.Println(err)
	}
	// Output:
	// [Default]
	// KEEP_SYSTEM_SERVICES="containerd kubelet"
	// PREINIT_01_HOSTS="echo \"10.0.0.1 api\" >> /etc/hosts"
	// FSTAB_01_DATA="10.0.0.1:/data /data nfs defaults,nofail 0 0"
	// RCFILE_01_MODULES="modprobe br_netfilter"
	// RCFILE_02_JOIN="kubeadm join --token \$(cat /run/token) api:6443"
}

// A client's own file, with what is meant for it and nothing else.
func ExampleCollect() {
	f, err := ltsconf.Parse(strings.NewReader(site))
	if err != nil {
		fmt.Println(err)
		return
	}
	if _, err := ltsconf.Collect(f.Resolve(ltsconf.Client{Hostname: "hall-3"})).WriteTo(os.Stdout); err != nil {
		fmt.Println(err)
	}
	// Output:
	// [Default]
	// XKBLAYOUT="us,ru"
	// SCREEN_07="kiosk"
	// SYSLOG_HOST="192.168.67.1"
}

func ExampleLiteral() {
	v := ltsconf.Literal("cost: $5")
	fmt.Println(v.Raw)
	fmt.Println(v.Literal())
	fmt.Println(ltsconf.Value{Raw: "$HOSTNAME.lab"}.Literal())
	// Output:
	// cost: \$5
	// cost: $5 true
	//  false
}

// One client's view of the TFTP tree: its file, at every name it may ask for.
func ExampleNames() {
	var file bytes.Buffer
	if _, err := (ltsconf.Settings{{Name: "SOUND", Value: ltsconf.Literal("True")}}).WriteTo(&file); err != nil {
		fmt.Println(err)
		return
	}
	tree := fstest.MapFS{} // an fs.FS has no leading slashes
	for _, name := range ltsconf.Names("amd64", "/images/lab") {
		fmt.Println(name)
		tree[strings.TrimPrefix(name, "/")] = &fstest.MapFile{Data: file.Bytes()}
	}
	fmt.Println(len(tree), "files")
	// Output:
	// /images/lab/lts.conf
	// images/lab/lts.conf
	// /ltsp/amd64/lts.conf
	// ltsp/amd64/lts.conf
	// 2 files
}
