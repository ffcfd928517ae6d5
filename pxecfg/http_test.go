package pxecfg

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"strings"
	"sync"
	"testing"
	"testing/fstest"

	"github.com/insomniacslk/dhcp/iana"
	"github.com/stretchr/testify/require"
)

// get asks as the machine with the address 192.0.2.n.
func get(t testing.TB, h http.Handler, n byte, target string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(http.MethodGet, target, nil)
	r.RemoteAddr = netip.AddrPortFrom(ip(n), 1234).String()
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	if w.Code == http.StatusOK && strings.Contains(r.URL.Path, "grub.cfg") {
		grubSeen(w.Body.String())
	}
	return w
}

func TestHTTPWhoAsks(t *testing.T) {
	tree, m := testTree()
	for _, tt := range []struct {
		peer   byte
		target string
		status int
		want   string
	}{
		// A lease decides.
		{1, "/boot.ipxe", 200, "one/vmlinuz"},
		{2, "/boot.ipxe", 200, "two/vmlinuz"},
		{1, "/boot.ipxe?mac=02-00-00-00-00-01&uuid=085994b8-a6d6-a941-611d-74a6ab80b83d", 200, "one/vmlinuz"},
		{1, "/boot.ipxe?mac=02-00-00-00-00-02", 403, ""},
		{1, "/boot.ipxe?uuid=" + dmiUUID, 403, ""},
		{1, "/boot.ipxe?mac=&uuid=", 200, "one/vmlinuz"},
		{1, "/mac-02-00-00-00-00-02.ipxe", 404, ""},
		{1, "/pxelinux.cfg/01-02-00-00-00-00-02", 404, ""},
		// An address that has one UUID for DHCP and another for SMBIOS.
		{1, "/boot.ipxe?mac=02-00-00-00-00-01&uuid=" + dmiUUID, 200, "one/vmlinuz"},
		// Without a lease the query, then the path.
		{50, "/boot.ipxe?mac=02-00-00-00-00-01", 200, "one/vmlinuz"},
		{50, "/boot.ipxe?mac=02:00:00:00:00:01", 200, "one/vmlinuz"},
		{50, "/boot.ipxe?mac=020000000001", 200, "one/vmlinuz"},
		{50, "/boot.ipxe?mac=&uuid=" + dmiUUID, 200, "two/vmlinuz"},
		{50, "/boot.ipxe?mac=02-00-00-00-00-99&uuid=" + dmiUUID, 404, ""}, // not with another's hardware address
		{50, "/boot.ipxe?mac=02-00-00-00-00-99", 404, ""},
		{50, "/boot.ipxe?mac=nonsense", 400, ""},
		{50, "/boot.ipxe?uuid=nonsense", 400, ""},
		{50, "/boot.ipxe?mac=02-00-00-00-00-01%zz", 200, "chain boot.ipxe?mac="}, // a query that cannot be read is none
		{50, "/mac-02-00-00-00-00-02.ipxe", 200, "two/vmlinuz"},
		{50, "/pxelinux.cfg/01-02-00-00-00-00-02", 200, "two/vmlinuz"},
		{7, "/boot.ipxe?mac=02-00-00-00-00-99", 200, "seven/vmlinuz"},
		// A dispatcher asks once.
		{50, "/x/boot.ipxe", 200, "chain boot.ipxe?mac=${netX/mac:hexhyp}&uuid=${uuid}&"},
		{50, "/boot.ipxe?mac=&uuid=", 404, ""},
		// Common files, and what is none.
		{50, "/one/vmlinuz", 200, "kernel one"},
		{50, "//one//vmlinuz", 200, "kernel one"},
		{50, "/x/../one/vmlinuz", 200, "kernel one"},
		{50, "/one", 404, ""},
		{50, "/", 404, ""},
		{50, "/none", 404, ""},
	} {
		w := get(t, tree, tt.peer, tt.target)
		require.Equal(t, tt.status, w.Code, "%d %s: %s", tt.peer, tt.target, w.Body)
		require.Contains(t, w.Body.String(), tt.want, "%d %s", tt.peer, tt.target)
	}
	m.Unknown = LocalDisk()
	for _, target := range []string{"/boot.ipxe?mac=02-00-00-00-00-99", "/boot.ipxe?mac=&uuid="} {
		w := get(t, tree, 50, target)
		require.Contains(t, w.Body.String(), "sanboot", target)
		require.NotContains(t, w.Body.String(), "chain ", target)
	}

	tree.TrustQuery = true
	require.Contains(t, get(t, tree, 1, "/boot.ipxe?mac=02-00-00-00-00-02").Body.String(), "two/vmlinuz")
	require.Contains(t, get(t, tree, 1, "/boot.ipxe").Body.String(), "one/vmlinuz")

	tree.Lookup = func(context.Context, netip.Addr) (Client, error) { return Client{}, errors.New("down") }
	require.Equal(t, 500, get(t, tree, 1, "/boot.ipxe").Code)
}

// What the query says reaches the source.
func TestHTTPQueryClient(t *testing.T) {
	var got Client
	tree := &Tree{Logger: quiet, Source: SourceFunc(func(_ context.Context, c Client) (*Config, error) { got = c; return LocalDisk(), nil })}
	query := "/boot.ipxe?mac=02-00-00-00-00-01&uuid=" + dmiUUID + "&hostname=n1&arch=x86_64&platform=efi"
	require.Equal(t, 200, get(t, tree, 5, query).Code)
	require.Equal(t, Client{MAC: mac(1), UUID: wireUUID, IP: ip(5), Hostname: "n1", Arch: iana.EFI_X86_64, ArchKnown: true, Platform: "efi", Loader: LoaderIPXE}, got)
	tree.TrustQuery = true
	require.Equal(t, 200, get(t, tree, 5, query).Code)
	require.Equal(t, ip(5), got.Peer)
	require.False(t, got.IP.IsValid(), "a proxy's address is not the machine's")
	for q, want := range map[string]iana.Arch{"i386&platform=pcbios": 0, "i386&platform=efi": iana.EFI_IA32, "arm64&platform=efi": iana.EFI_ARM64, "arm32&platform=efi": iana.EFI_ARM32, "riscv64&platform=efi": iana.EFI_RISCV64} {
		get(t, tree, 5, "/boot.ipxe?mac=&arch="+q)
		require.True(t, got.ArchKnown)
		require.Equal(t, want, got.Arch, q)
	}
	get(t, tree, 5, "/boot.ipxe?mac=&arch=mips&platform=efi")
	require.False(t, got.ArchKnown)
}

// Over HTTP every loader gets paths that lead back to this handler, wherever
// it is mounted.
func TestHTTPMounted(t *testing.T) {
	tree, _ := testTree()
	mux := http.NewServeMux()
	mux.Handle("/boot/", http.StripPrefix("/boot", tree))
	host := "http://192.0.2.100:8080"
	require.Contains(t, get(t, mux, 1, host+"/boot/x/boot.ipxe").Body.String(), "kernel /boot/one/vmlinuz ")
	require.Contains(t, get(t, mux, 1, host+"/boot/x/pxelinux.cfg/default").Body.String(), "LINUX http://192.0.2.100:8080/boot/one/vmlinuz\n")
	require.Contains(t, get(t, mux, 1, host+"/boot/grub/grub.cfg").Body.String(), "if linux '/boot/one/vmlinuz'")
	require.Contains(t, get(t, mux, 50, host+"/boot/grub/grub.cfg").Body.String(), "configfile '/boot/grub/grub.cfg-'$net_default_mac")
	tree.BaseURL = "http://cache.example/b"
	require.Contains(t, get(t, mux, 1, host+"/boot/x/boot.ipxe").Body.String(), "kernel http://cache.example/b/one/vmlinuz ")
	require.Contains(t, get(t, mux, 1, host+"/boot/x/pxelinux.cfg/default").Body.String(), "LINUX http://cache.example/b/one/vmlinuz\n")
}

// A real server and client: HEAD, ranges, methods, what is traced.
func TestHTTPServer(t *testing.T) {
	tree, m := testTree()
	m.List = append(m.List, Machine{IP: netip.MustParseAddr("127.0.0.1"), Source: kernel("loop")})
	dir := t.TempDir()
	require.NoError(t, os.WriteFile(dir+"/vmlinuz", []byte("0123456789"), 0o600))
	tree.Files = os.DirFS(dir)
	var mu sync.Mutex
	var sent []Sent
	tree.Trace = &Trace{Sent: func(_ context.Context, s Sent) { mu.Lock(); sent = append(sent, s); mu.Unlock() }}
	srv := httptest.NewServer(tree)
	do := func(method, path string, header ...string) (*http.Response, string) {
		r, err := http.NewRequest(method, srv.URL+path, nil)
		require.NoError(t, err)
		for i := 0; i < len(header); i += 2 {
			r.Header.Set(header[i], header[i+1])
		}
		resp, err := srv.Client().Do(r)
		require.NoError(t, err)
		body, err := io.ReadAll(resp.Body)
		require.NoError(t, err)
		require.NoError(t, resp.Body.Close())
		return resp, string(body)
	}
	resp, body := do("GET", "/boot.ipxe")
	require.Equal(t, 200, resp.StatusCode)
	require.Equal(t, "no-store", resp.Header.Get("Cache-Control"))
	etag := resp.Header.Get("ETag")
	head, none := do("HEAD", "/boot.ipxe")
	require.Empty(t, none)
	require.Equal(t, resp.ContentLength, head.ContentLength)
	require.EqualValues(t, len(body), head.ContentLength)
	require.Equal(t, etag, head.Header.Get("ETag"))
	part, rest := do("GET", "/boot.ipxe", "Range", "bytes=6-", "If-Range", etag)
	require.Equal(t, 206, part.StatusCode)
	require.Equal(t, body[6:], rest)

	part, rest = do("GET", "/vmlinuz", "Range", "bytes=2-4")
	require.Equal(t, 206, part.StatusCode)
	require.Equal(t, "234", rest)
	require.Equal(t, "application/octet-stream", part.Header.Get("Content-Type"))
	resp, _ = do("GET", "/vmlinuz", "Range", "bytes=20-")
	require.Equal(t, 416, resp.StatusCode)
	resp, _ = do("PUT", "/vmlinuz")
	require.Equal(t, 405, resp.StatusCode)
	require.Equal(t, "GET, HEAD", resp.Header.Get("Allow"))

	srv.Close()
	require.Len(t, sent, 6)
	require.Equal(t, "boot.ipxe", sent[0].Name)
	require.Equal(t, "127.0.0.1", sent[0].Peer.String())
	require.EqualValues(t, len(body), sent[0].Bytes)
	require.Equal(t, 206, sent[3].Status)
	require.EqualValues(t, 3, sent[3].Bytes)
	require.Equal(t, 405, sent[5].Status)
}

// Who a name speaks of is who is traced.
func TestHTTPTraceNamed(t *testing.T) {
	tree, _ := testTree()
	var got Client
	tree.Trace = &Trace{Sent: func(_ context.Context, s Sent) { got = s.Client }}
	get(t, tree, 50, "/mac-02-00-00-00-00-02.ipxe")
	require.Equal(t, Client{MAC: mac(2), Peer: ip(50)}, got)
	get(t, tree, 1, "/mac-02-00-00-00-00-02.ipxe")
	require.Equal(t, mac(1), got.MAC)
}

// A file system whose files can only be read is refused, not served wrongly.
func TestHTTPFilesThatCannotSeek(t *testing.T) {
	tree := &Tree{Logger: quiet, Files: readOnlyFS{}}
	require.Equal(t, 500, get(t, tree, 1, "/x").Code)
}

type readOnlyFS struct{}

func (readOnlyFS) Open(string) (fs.File, error) {
	return struct{ fs.File }{newFile("x", []byte("x"), false)}, nil
}

func FuzzHTTP(f *testing.F) {
	f.Add("/boot.ipxe", "mac=02-00-00-00-00-01&uuid=x")
	f.Add("/grub/../../etc/passwd", "")
	f.Add("//pxelinux.cfg//default", "mac=&mac=%00")
	f.Add("/\x00/boot.ipxe", "&&&;=")
	tree, _ := testTree()
	f.Fuzz(func(t *testing.T, path, query string) {
		r := httptest.NewRequest(http.MethodGet, "/", nil)
		r.URL.Path, r.URL.RawQuery = path, query
		w := httptest.NewRecorder()
		tree.ServeHTTP(w, r)
		require.Contains(t, []int{200, 304, 400, 403, 404}, w.Code)
	})
}

func BenchmarkHTTP(b *testing.B) {
	tree, _ := testTree()
	r := httptest.NewRequest(http.MethodGet, "/boot.ipxe", nil)
	r.RemoteAddr = net.JoinHostPort(ip(1).String(), "1")
	b.ReportAllocs()
	for b.Loop() {
		w := httptest.NewRecorder()
		if tree.ServeHTTP(w, r); w.Code != 200 {
			b.Fatal(w.Code)
		}
	}
}

// With KnownOnly only a lease says who somebody is.
func TestKnownOnly(t *testing.T) {
	mac := net.HardwareAddr{0x52, 0x54, 0, 0, 0, 1}
	leased, stranger := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.2")
	secret := func(_ context.Context, c Client) ([]byte, error) { return []byte("of " + c.MAC.String()), nil }
	tree := &Tree{
		KnownOnly: true,
		Source:    LocalDisk(),
		Files:     fstest.MapFS{"vmlinuz": {Data: []byte("kernel")}},
		Extra:     map[string]func(context.Context, Client) ([]byte, error){"lts.conf": secret},
		Lookup: func(_ context.Context, addr netip.Addr) (Client, error) {
			if addr == leased {
				return Client{MAC: mac, IP: addr}, nil
			}
			return Client{}, fs.ErrNotExist
		},
	}
	for _, tt := range []struct {
		path       string
		known, not int
	}{
		{path: "/boot.ipxe", known: 200, not: 404},
		{path: "/boot.ipxe?mac=" + mac.String(), known: 200, not: 403},
		{path: "/mac-52-54-00-00-00-01.ipxe", known: 200, not: 404},
		{path: "/pxelinux.cfg/01-52-54-00-00-00-01", known: 200, not: 404},
		{path: "/lts.conf", known: 200, not: 404},
		{path: "/vmlinuz", known: 200, not: 200},
	} {
		for from, want := range map[netip.Addr]int{leased: tt.known, stranger: tt.not} {
			r := httptest.NewRequest(http.MethodGet, tt.path, nil)
			r.RemoteAddr = netip.AddrPortFrom(from, 1024).String()
			w := httptest.NewRecorder()
			tree.ServeHTTP(w, r)
			require.Equal(t, want, w.Code, "%s from %s", tt.path, from)
		}
	}
}

// A name in the query may be the key to what is another machine's.
func TestHTTPQueryHostname(t *testing.T) {
	var asked Client
	tree := &Tree{
		Source: SourceFunc(func(_ context.Context, c Client) (*Config, error) { asked = c; return LocalDisk(), nil }),
		Lookup: func(_ context.Context, a netip.Addr) (Client, error) { return Client{MAC: mac(1), IP: a}, nil },
		Logger: quiet,
	}
	for trust, want := range map[bool]string{false: "", true: "two"} {
		tree.TrustQuery = trust
		require.Equal(t, 200, get(t, tree, 1, "/boot.ipxe?mac=02-00-00-00-00-01&hostname=two").Code)
		require.Equal(t, want, asked.Hostname)
	}
}
