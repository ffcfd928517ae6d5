package app

import (
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	pin "github.com/pin/tftp/v3"
	"github.com/stretchr/testify/require"

	"github.com/seed-3ec230fa/diskless/dhcp"
	"github.com/seed-3ec230fa/diskless/internal/config"
)

// upload sends a file from an address.
func (w *world) upload(name, text string, from netip.Addr) error {
	w.t.Helper()
	c, err := pin.NewClient(w.sockets.TFTP.LocalAddr().String())
	require.NoError(w.t, err)
	require.NoError(w.t, c.SetLocalAddr(from.String()))
	send, err := c.Send(name, "octet")
	if err != nil {
		return err
	}
	_, err = send.ReadFrom(strings.NewReader(text))
	return err
}

// A machine's files come to a directory of its own, and those of strangers to
// one for all, if they are welcome.
func TestUploads(t *testing.T) {
	for _, unknown := range []string{config.UnknownDeny, config.UnknownLocal} {
		dir := t.TempDir()
		w := newWorld(t, func(c *config.Config) {
			c.Unknown = unknown
			c.TFTP.OnePort = true
			c.TFTP.Uploads = &config.Uploads{Dir: dir, MaxSize: config.Size{Bytes: 6000}, Total: config.Size{Bytes: 10_000}}
		}).run()
		read := func(name string) string {
			text, err := os.ReadFile(filepath.Join(dir, name))
			require.NoError(t, err)
			return string(text)
		}
		one, two := w.lease(macs[0], dhcp.BIOSFirmware()).Addr.Addr(), w.lease(macs[1], dhcp.BIOSFirmware()).Addr.Addr()
		require.NoError(t, w.upload("core", "of one", one))
		require.NoError(t, w.upload("core", "of two", two))
		require.Equal(t, "of one", read("one/core"))
		require.Equal(t, "of two", read("two/core"))
		require.ErrorContains(t, w.upload("core", "again", one), "file already exists")
		require.ErrorContains(t, w.upload("../two/core", "x", one), "access violation")
		require.ErrorContains(t, w.upload("large", strings.Repeat("x", 6001), one), "larger than this server takes")
		require.ErrorContains(t, w.upload("large", strings.Repeat("x", 6000), one), "disk full")
		_, err := w.tftp("core", one)
		require.Error(t, err, "nothing of it is served")
		require.Contains(t, w.log.String(), `what="upload of core"`)

		stranger := netip.MustParseAddr("127.0.0.1")
		if unknown == config.UnknownDeny {
			require.ErrorContains(t, w.upload("core", "x", stranger), "access violation")
			require.NoDirExists(t, filepath.Join(dir, strangers))
			continue
		}
		require.NoError(t, w.upload("a/core", "of a stranger", stranger))
		require.Equal(t, "of a stranger", read(strangers+"/127.0.0.1-a-core"))
	}
}

func TestNoUploads(t *testing.T) {
	w := newWorld(t, nil).run()
	require.ErrorContains(t, w.upload("core", "x", netip.MustParseAddr("127.0.0.1")), "accepts no uploads")
}
