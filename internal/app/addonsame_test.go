package app

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/seed-3ec230fa/diskless/pxecfg"
)

// A machine's archive is the same, whether its settings are in an lts.conf or in an ltsp.conf.
func TestAddonOfEitherFile(t *testing.T) {
	w := newWorld(t, nil)
	lts, ltsp := filepath.Join(w.dir, "lts.conf"), filepath.Join(w.dir, "ltsp.conf")
	require.NoError(t, os.WriteFile(lts, []byte(`[Default]
LANG="C.UTF-8"
LATER="expanded on $(uname -s)"
ODD="it's 100% \"odd\", \$HOME; \\ Grüße"
KEEP_SYSTEM_SERVICES="kubelet"
PREINIT_02_SECOND="echo second"
PREINIT_01_FIRST="echo first"
FSTAB_01_SCRATCH="tmpfs /srv/scratch tmpfs size=1M 0 0"
RCFILE_01_MODULES="modprobe -a br_netfilter overlay"

[one]
RCFILE_10_JOIN="kubeadm join"
LANG="de_DE.UTF-8"

[two]
RCFILE_10_JOIN="another machine's"
`), 0o644))
	require.NoError(t, os.WriteFile(ltsp, []byte(`[server]
LANG="of the server"

[clients]
LANG="C.UTF-8"
LATER="expanded on $(uname -s)"
ODD='it'\''s 100% "odd", $HOME; \ Grüße'
KEEP_SYSTEM_SERVICES=kubelet
PREINIT_02_SECOND="echo second"
PREINIT_01_FIRST='echo first'
FSTAB_01_SCRATCH="tmpfs /srv/scratch tmpfs size=1M 0 0"
RCFILE_01_MODULES="modprobe -a br_netfilter overlay"

[`+macs[0].String()+`]
RCFILE_10_JOIN="kubeadm join"
LANG="de_DE.UTF-8"

[two]
RCFILE_10_JOIN="another machine's"
`), 0o644))
	m := &w.cfg.Machines[0]
	of := func(lts, ltsp string) string {
		w.cfg.LTSConf, w.cfg.LTSPConf = lts, ltsp
		data, err := w.addons.build(t.Context(), pxecfg.Client{MAC: macs[0], Hostname: "one"}, m)
		require.NoError(t, err)
		return string(data)
	}
	one, other := of(lts, ""), of("", ltsp)
	require.Equal(t, files(t, one), files(t, other))
	require.Equal(t, one, other, "byte by byte")
	require.Contains(t, files(t, one)["diskless/rcfiles"], "kubeadm join")
}
