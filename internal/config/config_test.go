package config

import (
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// write puts a configuration and what it names into a new directory.
func write(t testing.TB, text string, more map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	files := map[string]string{
		"diskless.yaml": text, "boot/.keep": "", "conf.d/.keep": "", "lts.conf": "[Default]\nLANG=C\n",
		"bad.conf": "A=1\n", "images/debian12.squashfs": "x", "images/desk.ext4": "x",
		"uploads/.keep": "", "etcd/ca.pem": "x", "etcd/dhcp1.pem": "x", "etcd/dhcp1-key.pem": "x", "etcd/password": "x",
	}
	for name, content := range more {
		files[name] = content
	}
	for name, content := range files {
		file := filepath.Join(dir, name)
		require.NoError(t, os.MkdirAll(filepath.Dir(file), 0o755))
		require.NoError(t, os.WriteFile(file, []byte(content), 0o644))
	}
	return filepath.Join(dir, "diskless.yaml")
}

func TestReference(t *testing.T) {
	text, err := os.ReadFile("reference.yaml")
	require.NoError(t, err)
	file := write(t, string(text), map[string]string{
		"conf.d/20.yaml": "machines:\n  - {name: desk03, mac: 52:54:00:67:00:03, entry: desk}\n",
		"conf.d/10.yaml": "machines:\n  - {name: desk02, mac: 52:54:00:67:00:02, entry: debian12}\n",
		"conf.d/ignored": "not yaml: [",
	})
	c, err := Load(file)
	require.NoError(t, err)

	require.Equal(t, "desk01", c.Machines[0].Root)
	require.Equal(t, []string{"desk01", "desk02", "desk03"}, []string{c.Machines[0].Name, c.Machines[1].Name, c.Machines[2].Name})
	require.Equal(t, LoaderPXELINUX, c.Machines[0].Loader)
	require.Equal(t, LoaderIPXE, c.Machines[1].Loader, "the default of the file")
	require.Equal(t, filepath.Join(filepath.Dir(file), "images/desk.ext4"), c.Images[1].File, "relative to the file")
	require.Equal(t, "192.168.67.199", c.DHCP.Ranges[0].To.String())
	require.Equal(t, TFTP{Enabled: c.TFTP.Enabled, Listen: ":69", Address: c.Server.Address, Rate: Size{400 << 20}, RatePerAddress: Size{100 << 20},
		Transfers: 1000, TransfersPerAddress: 64,
		Uploads: &Uploads{Dir: filepath.Join(filepath.Dir(file), "uploads"), MaxSize: Size{64 << 20}, Total: Size{1 << 30}}}, *c.TFTP)
	require.True(t, c.ServesDHCP() && c.ServesTFTP() && c.ServesHTTP() && c.ServesNBD())
}

// Every key of the structs stands in the reference, so that it is complete.
func TestReferenceIsComplete(t *testing.T) {
	text, err := os.ReadFile("reference.yaml")
	require.NoError(t, err)
	var walk func(typ reflect.Type)
	walk = func(typ reflect.Type) {
		switch typ.Kind() {
		case reflect.Pointer, reflect.Slice:
			walk(typ.Elem())
		case reflect.Struct:
			for i := range typ.NumField() {
				f := typ.Field(i)
				if key := f.Tag.Get("yaml"); key != "" {
					require.Regexp(t, `(?m)(^|[ -])`+strings.ReplaceAll(key, ".", `\.`)+`:`, string(text))
					walk(f.Type)
				}
			}
		}
	}
	walk(reflect.TypeFor[Config]())
}

func TestMistakes(t *testing.T) {
	const head = "server: {address: 192.168.67.1}\n"
	const etcd = head + "dhcp: {interface: lan0, subnet: 192.168.67.0/24, lease: 1h, etcd: "
	const v6 = head + "dhcp: {interface: lan0, subnet: 192.168.67.0/24, lease: 1h, v6: "
	for _, tt := range []struct{ name, text, want string }{
		{"unknown key", head + "tftp:\n  lisen: \":69\"\n", `diskless.yaml:3:3: unknown key "lisen"; did you mean "listen"?`},
		{"unknown section", head + "xyzzyfoo: {}\n", `diskless.yaml:2:1: unknown key "xyzzyfoo"; known here: addon, conf.d, dhcp,`},
		{"given twice", head + "tftp:\n  listen: \":69\"\n  listen: \":70\"\n", `diskless.yaml:4:3: key "listen" is given twice`},
		{"wrong kind", head + "tftp: [1, 2]\n", `diskless.yaml:2:7: want a section of`},
		{"wrong type", head + "nbd:\n  port: many\n", `diskless.yaml:3:9: want a number, not "many"`},
		{"syntax", head + "tftp: [\n", `diskless.yaml:`},
		{"alias", head + "tftp: &a {}\nhttp: *a\n", `diskless.yaml:3:7: anchors and aliases`},
		{"bad mac", head + "tftp:\nmachines:\n  - name: a\n    mac: 52:54:zz\n", `diskless.yaml:5:10: "52:54:zz" is not a hardware address`},
		{"bad subnet", head + "dhcp: {interface: lan0, subnet: 192.168.67.1/24}\n", `diskless.yaml:2:33: "192.168.67.1/24" has address bits after its mask; did you mean 192.168.67.0/24?`},
		{"backward range", head + "dhcp:\n  ranges: [10.0.0.9-10.0.0.1]\n", `diskless.yaml:3:12: range "10.0.0.9-10.0.0.1" ends before it begins`},
		{"no interface", head + "dhcp: {subnet: 192.168.67.0/24}\n", `diskless.yaml:2:7: dhcp.interface is missing`},
		{"proxy with addresses", head + "dhcp: {interface: lan0, proxy: true, ranges: [192.168.67.10]}\n", `diskless.yaml:2:46: dhcp.ranges: with proxy: true another server gives the addresses`},
		{"proxy with a probe", head + "dhcp: {interface: lan0, proxy: true, probe: false}\n", `diskless.yaml:2:45: dhcp.probe: with proxy`},
		{"proxy nowhere", head + "dhcp: {proxy: true}\n", `diskless.yaml:2:7: dhcp.interface is missing`},
		{"probe", head + "dhcp: {interface: lan0, subnet: 192.168.67.0/24, probe: sometimes}\n", `diskless.yaml:2:57: want true or false, not "sometimes"`},
		{"etcd without endpoints", etcd + "{}}\n", `diskless.yaml:2:67: dhcp.etcd.endpoints is missing`},
		{"etcd endpoint", etcd + "{endpoints: [\"http://a:1\", a:1]}}\n", `diskless.yaml:2:94: "a:1" is not an endpoint of etcd; write it as https://192.168.67.2:2379`},
		{"etcd key", etcd + "{endpoints: [\"https://a:1\"], cert: etcd/ca.pem}}\n", `diskless.yaml:2:102: dhcp.etcd.cert needs dhcp.etcd.key too`},
		{"etcd ca", etcd + "{endpoints: [\"http://a:1\"], ca: etcd/ca.pem}}\n", `diskless.yaml:2:99: dhcp.etcd.ca is for endpoints with https://, and not all are`},
		{"etcd file", etcd + "{endpoints: [\"https://a:1\"], ca: nowhere}}\n", `nowhere: no such file`},
		{"etcd password", etcd + "{endpoints: [\"https://a:1\"], user: me}}\n", `diskless.yaml:2:102: dhcp.etcd.user needs dhcp.etcd.password-file too`},
		{"etcd itself", etcd + "{endpoints: [\"http://a:1\"], servers: [192.168.67.1]}}\n", `dhcp.etcd.servers: 192.168.67.1 is this server's own address`},
		{"etcd name", etcd + "{endpoints: [\"http://a:1\"], name: a/b}}\n", `diskless.yaml:2:101: dhcp.etcd.name: "a/b" has a slash`},
		{"etcd beside a server", head + "dhcp: {interface: lan0, proxy: true, etcd: {endpoints: [\"http://a:1\"]}}\n", `diskless.yaml:2:44: dhcp.etcd: with proxy: true`},
		{"no address6", v6 + "{subnet: fd00::/64}}\n", `diskless.yaml:2:65: dhcp.v6.address is missing`},
		{"link-local address6", v6 + "{address: fe80::1, stateless: true}}\n", `diskless.yaml:2:75: dhcp.v6.address: firmware needs`},
		{"bad address6", v6 + "{address: 10.0.0.1}}\n", `diskless.yaml:2:75: "10.0.0.1" is not an IPv6 address`},
		{"no subnet6", v6 + "{address: fd00::1}}\n", `diskless.yaml:2:65: dhcp.v6.subnet is missing`},
		{"bad subnet6", v6 + "{address: fd00::1, subnet: 10.0.0.0/8}}\n", `diskless.yaml:2:92: "10.0.0.0/8" is not an IPv6 subnet`},
		{"host bits6", v6 + "{address: fd00::1, subnet: fd00::1/64}}\n", `did you mean fd00::/64?`},
		{"bad range6", v6 + "{address: fd00::1, subnet: fd00::/64, ranges: [fd00::9-fd00::1]}}\n", `diskless.yaml:2:112: range "fd00::9-fd00::1" ends before it begins`},
		{"overlapping ranges6", v6 + "{address: fd00::1, subnet: fd00::/64, ranges: [fd00::9, fd00::1-fd00::9]}}\n", `overlaps with fd00::9`},
		{"outside subnet6", v6 + "{address: fd01::1, subnet: fd00::/64, ranges: [fd02::1]}}\n", `diskless.yaml:2:75: dhcp.v6.address fd01::1 is not in dhcp.v6.subnet`},
		{"range outside subnet6", v6 + "{address: fd00::1, subnet: fd00::/64, ranges: [fd02::1]}}\n", `range end fd02::1 is not in dhcp.v6.subnet`},
		{"short lease6", v6 + "{address: fd00::1, subnet: fd00::/64, lease: 1s}}\n", `diskless.yaml:2:110: a lease of 1s is too short`},
		{"stateless with addresses", v6 + "{address: fd00::1, subnet: fd00::/64, stateless: true}}\n", `diskless.yaml:2:92: dhcp.v6.subnet: with stateless`},
		{"tftp without IPv6", v6 + "{address: fd00::1, stateless: true}}\ntftp: {listen: \"192.168.67.1:69\"}\n", `diskless.yaml:3:16: tftp.listen: 192.168.67.1 is not an IPv6 address`},
		{"machine's address6", v6 + "{address: fd00::1, subnet: fd00::/64}}\nmachines:\n  - {name: a, mac: 52:54:00:00:00:01, address6: fd01::9, entry: local}\n", `diskless.yaml:4:49: machine a: address6 fd01::9 is not in`},
		{"address6 twice", v6 + "{address: fd00::1, subnet: fd00::/64}}\nmachines:\n  - {name: a, mac: 52:54:00:00:00:01, address6: fd00::9, entry: local}\n  - {name: b, mac: 52:54:00:00:00:02, address6: fd00::9, entry: local}\n", `diskless.yaml:5:49: machine b: address6 fd00::9 is machine a's already`},
		{"no subnet", head + "dhcp: {interface: lan0}\n", `dhcp.subnet is missing`},
		{"outside subnet", head + "dhcp: {interface: lan0, subnet: 10.0.0.0/24, ranges: [10.0.1.1]}\n", `range start 10.0.1.1 is not in dhcp.subnet 10.0.0.0/24`},
		{"no role", head, `no role is on`},
		{"bad listen", head + "nbd: {listen: \"10809\"}\n", `diskless.yaml:2:15: "10809" is not an address to listen on`},
		{"no such directory", head + "tftp:\nfiles: [{dir: nowhere}]\n", `no such file or directory`},
		{"no such image file", head + "nbd:\nimages: [{name: a, file: nowhere.img}]\n", `no such file or directory`},
		{"no such entry", head + "tftp:\nmachines:\n  - {name: a, mac: 52:54:00:00:00:01, entry: nope}\n", `diskless.yaml:4:46: machine a: there is no entry "nope"`},
		{"no identity", head + "tftp:\nmachines:\n  - {name: a, entry: local}\n", `say which machine it is`},
		{"mac twice", head + "tftp:\nmachines:\n  - {name: a, mac: 52:54:00:00:00:01, entry: local}\n  - {name: b, mac: 52-54-00-00-00-01, entry: local}\n", `diskless.yaml:5:20: machine b: mac 52:54:00:00:00:01 is machine a's already`},
		{"digits alone", head + "nbd:\nimages: [{name: \"2000\", file: images/desk.ext4}]\n", `image name "2000"`},
		{"separator in a name", head + "nbd:\nimages: [{name: a@b, file: images/desk.ext4}]\n", `image name "a@b"`},
		{"unknown root kind", head + "nbd:\nimages: [{name: a, file: images/desk.ext4}]\nentries: [{name: e, kernel: k, image: a, root: forever}]\n", `"forever" is not known; choose one of image, ephemeral, kept`},
		{"unknown policy", head + "tftp:\nunknown: dney\n", `diskless.yaml:3:10: unknown: "dney" is neither deny, nor local`},
		{"malformed second document", head + "tftp:\n---\n[: {", `diskless.yaml:`},
		{"nothing for a value", head + "dhcp: {enabled: , interface: lan0, subnet: 192.168.67.0/24}\n", `want true or false, not nothing`},
		{"address without mac", head + "dhcp: {interface: lan0, subnet: 192.168.67.0/24}\nmachines:\n  - {name: a, uuid: 6b1f0c5e-2a1d-4c3b-8f5e-0123456789ab, address: 192.168.67.9, entry: local}\n", `write its ` + "`mac` too"},
		{"server's address", head + "tftp:\nmachines:\n  - {name: a, address: 192.168.67.1, entry: local}\n", `is the server's own address`},
		{"one uuid in two spellings", head + "tftp:\nmachines:\n  - {name: a, uuid: 6b1f0c5e-2a1d-4c3b-8f5e-0123456789ab, entry: local}\n  - {name: b, uuid: 5e0c1f6b-1d2a-3b4c-8f5e-0123456789ab, entry: local}\n", `is machine a's already`},
		{"name begins badly", head + "tftp:\nmachines:\n  - {name: _x, mac: 52:54:00:00:00:01, entry: local}\n", `diskless.yaml:4:12: machine name "_x"`},
		{"long root name", head + "tftp:\nmachines:\n  - {name: x, mac: 52:54:00:00:00:01, entry: local, root: " + strings.Repeat("r", 64) + "}\n", `root name "rrrr`},
		{"dracut on another port", head + "nbd: {listen: \":10810\"}\nimages: [{name: a, file: images/desk.ext4}]\nentries: [{name: e, kernel: k, image: a, initramfs: dracut}]\n", `on port 10809 only`},
		{"overlapping ranges", head + "dhcp: {interface: lan0, subnet: 192.168.67.0/24, ranges: [192.168.67.10-192.168.67.20, 192.168.67.20]}\n", `overlaps with`},
		{"short lease", head + "dhcp: {interface: lan0, subnet: 192.168.67.0/24, lease: 5ms}\n", `too short`},
		{"bad size", head + "nbd: {quota: 20GB}\n", `"20GB" is not a size`},
		{"generations below none", head + "nbd: {keep: -1}\n", `diskless.yaml:2:13: nbd.keep: -1 is not a number of generations`},
		{"generations nowhere", head + "nbd: {keep: 3}\n", `diskless.yaml:2:13: nbd.keep needs a directory to keep generations in; set server.state`},
		{"lts.conf", head + "tftp:\nlts.conf: bad.conf\n", `bad.conf:1:`},
		{"tftp rate", head + "tftp:\n  rate: fast\n", `diskless.yaml:3:9: "fast" is not a size`},
		{"tftp transfers", head + "tftp: {transfers: 0}\n", `diskless.yaml:2:19: tftp.transfers: 0 is not a number of transfers; write 1 or more`},
		{"tftp transfers of one", head + "tftp: {transfers-per-address: -1}\n", `diskless.yaml:2:31: tftp.transfers-per-address: -1 is not`},
		{"tftp one port", head + "tftp: {one-port: perhaps}\n", `diskless.yaml:2:18: want true or false, not "perhaps"`},
		{"uploads to nowhere", head + "tftp: {uploads: {max-size: 1MiB}}\n", "diskless.yaml:2:17: tftp.uploads: `dir` is missing"},
		{"uploads alone", head + "tftp:\n  uploads:\n", "diskless.yaml:3:11: tftp.uploads: `dir` is missing"},
		{"no uploads", head + "tftp: {uploads: {dir: nothing}}\n", `no such file or directory; create it`},
		{"uploads to a file", head + "tftp: {uploads: {dir: lts.conf}}\n", `diskless.yaml:2:23: tftp.uploads: `},
		{"uploads that are served", head + "tftp: {uploads: {dir: boot}}\nfiles: [{dir: boot}]\n", `diskless.yaml:2:23: tftp.uploads: `},
		{"uploads around what is served", head + "tftp: {uploads: {dir: .}}\nfiles: [{dir: boot}]\n", `diskless.yaml:2:23: tftp.uploads: `},
		{"second document", head + "tftp:\n---\nhttp:\n", `a second document in one file`},
		{"empty menu", head + "tftp:\nmenus: [{name: m}]\n", `diskless.yaml:3:9: menu m: ` + "`entries` is missing"},
		{"menu of nothing", head + "tftp:\nmenus: [{name: m, entries: [nope]}]\n", `diskless.yaml:3:29: menu m: there is no entry "nope"`},
		{"menu's default", head + "tftp:\nmenus: [{name: m, entries: [local], default: x}]\n", `diskless.yaml:3:46: menu m: default "x" is none of its entries`},
		{"twice in a menu", head + "tftp:\nmenus: [{name: m, entries: [local, local]}]\n", `diskless.yaml:3:36: menu m: entry "local" is given twice`},
		{"rule for all", head + "tftp:\nrules: [{name: r, entry: local}]\n", `diskless.yaml:3:9: rule r: it fits every machine`},
		{"rule without entry", head + "tftp:\nrules: [{name: r, platform: [efi]}]\n", `diskless.yaml:3:9: rule r: ` + "`entry` is missing"},
		{"rule's entry", head + "tftp:\nrules: [{name: r, platform: [efi], entry: x}]\n", `diskless.yaml:3:43: rule r: there is no entry "x"`},
		{"rule's first boot", head + "tftp:\nrules: [{name: r, platform: [efi], entry: local, once: x}]\n", `diskless.yaml:3:56: rule r: there is no entry "x"`},
		{"rule's platform", head + "tftp:\nrules: [{name: r, platform: [bios], entry: local}]\n", `diskless.yaml:3:9: rule "r": platform "bios"`},
		{"rule's loader", head + "tftp:\nrules: [{name: r, asked-by: [lilo], entry: local}]\n", `boot loader "lilo"`},
		{"rule's prefix", head + "tftp:\nrules: [{name: r, mac-prefix: [zz], entry: local}]\n", `diskless.yaml:3:32: "zz" is not the beginning of a hardware address`},
		{"rule's architecture", head + "tftp:\nrules: [{name: r, arch: [70000], entry: local}]\n", `diskless.yaml:3:26: want a number, not "70000"`},
		{"rule's profile", head + "tftp:\nrules: [{name: r, arch: [7], inherit: [p], entry: local}]\n", `diskless.yaml:3:40: rule r: there is no profile "p"`},
		{"profile of itself", head + "tftp:\nprofiles: [{name: p, inherit: [p]}]\nrules: [{name: r, arch: [7], inherit: [p], entry: local}]\n", `inherits from itself`},
		{"rule with a writable root", head + "nbd:\nimages: [{name: a, file: images/desk.ext4}]\nentries: [{name: e, kernel: k, image: a, root: kept}]\nrules: [{name: r, arch: [7], entry: e}]\n", `diskless.yaml:5:37: rule r: entry e has root: kept`},
		{"two writable roots", head + "nbd:\nimages: [{name: a, file: images/desk.ext4}]\nentries: [{name: e, kernel: k, image: a, root: kept}, {name: f, kernel: k, image: a, root: kept}]\nmenus: [{name: m, entries: [e, f]}]\n", `diskless.yaml:5:32: menu m: a machine has one writable root`},
		{"writable root elsewhere", head + "nbd: {enabled: false}\nentries: [{name: e, kernel: k, image: a, root: kept}]\n", `works only where the nbd role runs too`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := Load(write(t, tt.text, nil))
			require.ErrorContains(t, err, tt.want)
		})
	}
}

func TestMistakesInConfD(t *testing.T) {
	_, err := Load(write(t, "server: {address: 192.168.67.1}\ntftp:\nconf.d: conf.d\n", map[string]string{
		"conf.d/a.yaml": "machines:\n  - {name: a, mac: 52:54:00:00:00:01, entry: nope}\n",
	}))
	require.ErrorContains(t, err, "conf.d/a.yaml:2:46: machine a: there is no entry \"nope\"")

	_, err = Load(write(t, "tftp:\nconf.d: conf.d\n", map[string]string{"conf.d/a.yaml": "tftp:\n"}))
	require.ErrorContains(t, err, `conf.d/a.yaml:1:1: unknown key "tftp"`)
}

func TestAllMistakesAtOnce(t *testing.T) {
	_, err := Load(write(t, "tftp: {lisen: x}\nhttp: {port: 1}\n", nil))
	require.ErrorContains(t, err, ":1:8:")
	require.ErrorContains(t, err, ":2:8:")
}

func TestMissingFile(t *testing.T) {
	_, err := Load(filepath.Join(t.TempDir(), "no.yaml"))
	require.ErrorContains(t, err, "no.yaml: no such file or directory")
}

func FuzzDecode(f *testing.F) {
	ref, err := os.ReadFile("reference.yaml")
	require.NoError(f, err)
	f.Add(string(ref))
	f.Add("a: &a [*a]\n")
	f.Add("machines:\n  - {name: a, mac: 1}\n---\n")
	f.Fuzz(func(t *testing.T, text string) {
		d := &decoder{file: "f", pos: map[any]Position{}}
		c := &Config{pos: d.pos}
		d.decode(strings.NewReader(text), c)
		c.setDefaults()
		for _, err := range append(d.errs, c.check()...) {
			_ = fmt.Sprint(err)
		}
	})
}

// The configuration in the README is one that loads.
func TestREADME(t *testing.T) {
	readme, err := os.ReadFile("../../README.md")
	require.NoError(t, err)
	_, text, ok := strings.Cut(string(readme), "```yaml\n")
	require.True(t, ok)
	text, _, _ = strings.Cut(text, "```")
	text = strings.NewReplacer("/var/lib/diskless", "state", "/srv/boot", "boot", "/srv/images/debian12.ext4", "images/desk.ext4").Replace(text)
	c, err := Load(write(t, text, nil))
	require.NoError(t, err)
	require.Equal(t, RootKept, c.Entries[0].Root)
}
