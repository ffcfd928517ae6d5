package initrd

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"net/netip"
	"os"
	"strings"
	"testing"

	"github.com/cavaliergopher/cpio"
	"github.com/stretchr/testify/require"
)

var update = flag.Bool("update", false, "write the golden file")

// unpack returns the files of an archive and a listing of them.
func unpack(t testing.TB, data []byte) (listing string, files map[string]string) {
	t.Helper()
	files = map[string]string{}
	r := cpio.NewReader(bytes.NewReader(data))
	for {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return listing, files
		}
		require.NoError(t, err)
		require.True(t, h.ModTime.Unix() == 0 && h.Uid == 0 && h.Guid == 0, h.Name)
		text, err := io.ReadAll(r)
		require.NoError(t, err)
		listing += fmt.Sprintf("%06o %s\n", uint32(h.Mode), h.Name)
		files[h.Name] = string(text)
	}
}

// node is what a node of a cluster gets.
var node = []Setting{
	{Name: "HOSTNAME", Value: "node-01 and more"},
	{Name: "HOSTS_01", Value: "10.0.0.1 api.cluster"},
	{Name: "KEEP_SYSTEM_SERVICES", Value: "containerd rsyslog"},
	{Name: "MASK_SYSTEM_SERVICES", Value: "cups"},
	{Name: "DNS_SERVER", Value: "10.0.0.2 10.0.0.3"},
	{Name: "SEARCH_DOMAIN", Value: "cluster.example"},
	{Name: "TIMEZONE", Value: "Europe/Berlin"},
	{Name: "LANG", Value: "de_DE.UTF-8"},
	{Name: "XKBLAYOUT", Value: "de"},
	{Name: "CONSOLE_KEYMAP", Value: "de"},
	{Name: "FSTAB_01_DATA", Value: "10.0.0.1:/srv/data /data nfs vers=4.2 0 0"},
	{Name: "FSTAB_02_LOG", Value: "tmpfs /var/log/it\\040all tmpfs"},
	{Name: "CRONTAB_01", Value: "* * * * * root true"},
	{Name: "MODULE_01", Value: "br_netfilter debug=1"},
	{Name: "INIT_COMMAND_01", Value: "echo init >>/order"},
	{Name: "PREINIT_01", Value: "printf '%s\\n' \"$ODD\" >>/order"},
	{Name: "RCFILE_01_JOIN", Value: "kubeadm join --token 'a b'"},
	{Name: "ODD", Value: "it's \"$HOME\"\n"},
	{Name: "LATER", Value: "$(date) in $TIMEZONE", Expand: true},
	{Name: "no name", Value: "x"},
	{Name: "IMAGE_TO_RAM", Value: "1"},
}

var nodeOptions = Options{
	Hostname: "not-used", MachineID: "0123456789abcdef0123456789abcdef",
	HostKeys:       map[string][]byte{"ssh_host_ed25519_key": []byte("SECRET\n")},
	AuthorizedKeys: map[string][]string{"root": {"ssh-ed25519 AAAA admin"}},
	OverlaySize:    "50%", OverlayLabel: "scratch", Break: BreakOnError, Swap: Swap{Server: netip.MustParseAddr("10.0.0.1"), Export: "swap@swap-pc.t"}, Report: "http://10.0.0.1:8080/up/x",
}

func TestGolden(t *testing.T) {
	data, err := Build(node, Modules{{"overlay", []byte("ELF")}}, &nodeOptions)
	require.NoError(t, err)
	again, err := Build(node, Modules{{"overlay", []byte("ELF")}}, &nodeOptions)
	require.NoError(t, err)
	require.Equal(t, data, again)
	require.Zero(t, len(data)%4, "the next archive begins where the kernel looks for it")

	got, files := unpack(t, data)
	for _, name := range []string{"env", "settings", "preinit", "rcfiles", "report", "options"} {
		got += "== " + name + "\n" + files["diskless/"+name]
	}
	const golden = "testdata/node.golden"
	if *update {
		require.NoError(t, os.WriteFile(golden, []byte(got), 0o644))
	}
	want, err := os.ReadFile(golden)
	require.NoError(t, err)
	require.Equal(t, string(want), got)
	require.Equal(t, "overlay.ko\n", files["diskless-modules/order"])
}

func TestSizeWithoutModules(t *testing.T) {
	data, err := Build(nil, nil, nil)
	require.NoError(t, err)
	require.Less(t, len(data), 36<<10, "a few tens of KiB")
}

func TestOptionsRefused(t *testing.T) {
	for _, o := range []Options{
		{MachineID: "short"},
		{MachineID: strings.Repeat("G", 32)},
		{Hostname: "two words"},
		{HostKeys: map[string][]byte{"../key": nil}},
		{HostKeys: map[string][]byte{"ssh_host_/../x": nil}},
		{HostKeys: map[string][]byte{"ssh_host_dsa_key": {0, 1}}},
		{AuthorizedKeys: map[string][]string{"root": {"a", "b\x00"}}},
		{AuthorizedKeys: map[string][]string{"ro\x00ot": nil}},
		{OverlaySize: "1G,nosuid"},
		{OverlayLabel: "a/b"},
		{Report: "https://10.0.0.1/"},
		{Report: "http://10.0.0.1/?x=y"},
		{Report: "up"},
		{Break: "sometimes"},
		{Swap: Swap{Export: "swap"}},
		{Swap: Swap{Server: netip.MustParseAddr("10.0.0.1"), Export: "a\nb"}},
	} {
		_, err := Build(nil, nil, &o)
		require.ErrorIs(t, err, fs.ErrInvalid, "%+v", o)
	}
}

func TestModulesArchive(t *testing.T) {
	data, err := Modules{{"a", []byte("A")}, {"b", []byte("B")}}.Archive()
	require.NoError(t, err)
	listing, files := unpack(t, data)
	require.Equal(t, "040755 diskless-modules\n100644 diskless-modules/a.ko\n100644 diskless-modules/b.ko\n100644 diskless-modules/order\n", listing)
	require.Equal(t, "a.ko\nb.ko\n", files["diskless-modules/order"])
}

func BenchmarkBuild(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Build(node, nil, &nodeOptions); err != nil {
			b.Fatal(err)
		}
	}
}

// Whatever the settings are, each file of the archive is whole, and the
// generated ones are scripts without a syntax error in them.
func FuzzBuild(f *testing.F) {
	f.Add("FSTAB_1", "a'b", true)
	f.Add("PREINIT_1", "$(", true)
	f.Add("LANG", "\n\x00'", false)
	f.Fuzz(func(t *testing.T, name, value string, expand bool) {
		data, err := Build([]Setting{{name, value, expand}}, nil, nil)
		require.NoError(t, err)
		_, files := unpack(t, data)
		require.Equal(t, string(hook), files["diskless/hook"])
		for _, n := range []string{"env", "settings", "preinit", "rcfiles"} {
			require.NotContains(t, files["diskless/"+n], "\x00")
			text := strings.ReplaceAll(files["diskless/"+n], `'\''`, "")
			require.Zero(t, strings.Count(text, "'")%2, text)
		}
	})
}
