package dhcp

import (
	"fmt"
	"io/fs"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestParseOption(t *testing.T) {
	for _, test := range []struct {
		name, value string
		code        uint8
		want        string
	}{
		{"routers", "10.0.0.1, 10.0.0.2", 3, "\x0a\x00\x00\x01\x0a\x00\x00\x02"},
		{"3", "10.0.0.1", 3, "\x0a\x00\x00\x01"},
		{"time-offset", "-18000", 2, "\xff\xff\xb9\xb0"},
		{"interface-mtu", "9000", 26, "\x23\x28"},
		{"default-ip-ttl", "64", 23, "\x40"},
		{"loader-reboottime", "60", 211, "\x00\x00\x00\x3c"},
		{"ip-forwarding", "on", 19, "\x01"},
		{"root-path", "10.0.0.1:/srv/root", 17, "10.0.0.1:/srv/root"},
		{"domain-search", "lab.example, example.", 119, "\x03lab\x07example\x00\x07example\x00"},
		{"224", "0x0a1b", 224, "\x0a\x1b"},
		{"224", "a:1b:ff", 224, "\x0a\x1b\xff"},
		{"224", "text: of mine", 224, "text: of mine"},
		{"static-routes", "10.1.0.0 10.0.0.9", 33, "\x0a\x01\x00\x00\x0a\x00\x00\x09"},
	} {
		code, data, err := ParseOption(test.name, test.value)
		require.NoError(t, err, test.name)
		require.Equal(t, test.code, code)
		require.Equal(t, test.want, string(data), test.name)
	}
	for _, bad := range [][2]string{
		{"no-such", "x"}, {"0", "x"}, {"255", "x"}, {"256", "x"}, {"routers", ""}, {"routers", "::1"}, {"routers", "host"}, {"subnet-mask", "1.1.1.1,2.2.2.2"},
		{"static-routes", "10.0.0.1"}, {"interface-mtu", "70000"}, {"time-offset", "x"}, {"ip-forwarding", "maybe"}, {"domain-search", "a..b"}, {"domain-search", ""}, {"domain-search", "a." + strings.Repeat("b", 64)},
		{"host-name", ""}, {"default-ip-ttl", "-1"},
	} {
		_, _, err := ParseOption(bad[0], bad[1])
		require.ErrorIs(t, err, fs.ErrInvalid, "%v", bad)
	}
}

func FuzzParseOption(f *testing.F) {
	f.Add("routers", "10.0.0.1")
	f.Add("119", "a.b,c")
	f.Add("224", "0x00")
	f.Fuzz(func(t *testing.T, name, value string) {
		code, _, err := ParseOption(name, value)
		if err == nil {
			require.True(t, code > 0 && code < 255)
		}
	})
}

func ExampleParseOption() {
	code, value, err := ParseOption("ntp-servers", "192.0.2.1,192.0.2.2")
	fmt.Println(code, value, err)
	// Output: 42 [192 0 2 1 192 0 2 2] <nil>
}
