package initrd

import (
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// Whatever init an image has runs what is for the end of the boot, also in a
// root that has been booted before, and does not start what must not run.
func TestInits(t *testing.T) {
	const after = "/bin/sh /run/diskless/machine after\n"
	link := func(r *root, target, name string) {
		require.NoError(t, os.MkdirAll(r.path(name[:strings.LastIndexByte(name, '/')]), 0o755))
		require.NoError(t, os.Symlink(target, r.path(name)))
	}
	for name, test := range map[string]struct {
		prepare func(r *root)
		want    map[string]string
	}{
		"sysvinit": {func(r *root) {
			r.write("sbin/init", "", 0o755)
			r.write("etc/inittab", "id:2:initdefault:\nl2:2:wait:/etc/init.d/rc 2", 0o644)
			r.write("etc/init.d/rsyslog", "", 0o755)
			r.write("etc/init.d/mine", "", 0o755)
			link(r, "../init.d/rsyslog", "etc/rc2.d/S01rsyslog")
			link(r, "../init.d/rsyslog", "etc/rc0.d/K01rsyslog")
			link(r, "../init.d/mine", "etc/rc2.d/S01mine")
		}, map[string]string{
			"etc/inittab":          "id:2:initdefault:\nl2:2:wait:/etc/init.d/rc 2\n# diskless begin\ndl:2345:once:" + after + "# diskless end\n",
			"etc/rc2.d/S01mine":    "",
			"etc/rc0.d/K01rsyslog": "",
			"etc/rc2.d/S01rsyslog": "none",
		}},
		"sysvinit beside a systemd": {func(r *root) {
			r.write("lib/systemd/systemd", "", 0o755)
			r.write("sbin/init", "", 0o755)
			r.write("etc/inittab", "", 0o644)
		}, map[string]string{
			"etc/inittab":                         "# diskless begin\ndl:2345:once:" + after + "# diskless end\n",
			"run/systemd/system/diskless.service": "none", // and no directory by which programs know systemd
		}},
		"OpenRC": {func(r *root) {
			link(r, "/bin/busybox", "sbin/init")
			r.write("etc/inittab", "::sysinit:/sbin/openrc sysinit\n", 0o644)
			r.write("etc/init.d/rsyslog", "", 0o755)
			r.write("etc/init.d/local", "", 0o755)
			link(r, "/etc/init.d/rsyslog", "etc/runlevels/boot/rsyslog")
			link(r, "/etc/init.d/mine", "etc/runlevels/default/mine")
		}, map[string]string{
			"etc/inittab":                "::sysinit:/sbin/openrc sysinit\n",
			"etc/local.d/diskless.start": "#!/bin/sh\nexec " + after,
			"etc/runlevels/boot/rsyslog": "none",
		}},
		"busybox": {func(r *root) {
			link(r, "../bin/busybox", "sbin/init")
			r.write("etc/inittab", "::sysinit:/etc/init.d/rcS\n", 0o644)
		}, map[string]string{"etc/inittab": "::sysinit:/etc/init.d/rcS\n# diskless begin\n::once:" + after + "# diskless end\n"}},
		"another": {func(r *root) { r.write("sbin/init", "", 0o755) }, map[string]string{"etc/rc.local": "#!/bin/sh\n" + after}},
	} {
		t.Run(name, func(t *testing.T) {
			each(t, func(t *testing.T, r *root) {
				test.prepare(r)
				for range 2 {
					r.machine("memory", nil, nil)
					r.requireFiles(test.want)
				}
				if name == "OpenRC" {
					target, err := os.Readlink(r.path("etc/runlevels/default/local"))
					require.NoError(t, err)
					require.Equal(t, "/etc/init.d/local", target)
				}
			})
		})
	}
}
