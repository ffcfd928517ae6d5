package config

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestAddonMistakes(t *testing.T) {
	const head = "server: {address: 192.168.67.1}\ntftp:\n"
	for text, want := range map[string]string{
		"addon: {overlay-size: much}\n":                                    `diskless.yaml:3:8: addon: overlay size "much": write it as for a tmpfs: 2G or 50%`,
		"addon: {overlay-label: a/b}\n":                                    `diskless.yaml:3:8: addon: overlay label "a/b"`,
		"addon: {break: often}\n":                                          `diskless.yaml:3:8: addon: break "often": it is neither error nor always`,
		"addon: {authorized-keys: [\"\"]}\n":                               `diskless.yaml:3:27: addon: authorized-keys: write one line`,
		"addon: {authorized-keys: key}\n":                                  `want a list`,
		"entries: [{name: e, kernel: k, addon: perhaps}]\n":                `want true or false, not "perhaps"`,
		"ltsp.conf: nowhere\n":                                             `diskless.yaml:3:12: ltsp.conf: `,
		"lts.conf: nowhere\nltsp.conf: lts.conf\n":                         `diskless.yaml:4:12: ltsp.conf: there is an lts.conf too`,
		"nbd: {swap: 1GiB}\n":                                              `diskless.yaml:3:13: nbd.swap needs a directory`,
		"nbd: {swap: 0}\n":                                                 `"0" is not a size`,
		"nbd: {swap: 1GiB, quota: 512MiB}\n":                               `diskless.yaml:3:13: nbd.swap is larger than nbd.quota`,
		"nbd: {swap: 1GiB, enabled: false}\n":                              `diskless.yaml:3:13: nbd.swap works only where`,
		"nbd: {swap: 1GiB}\nimages: [{name: swap, file: diskless.yaml}]\n": `diskless.yaml:4:17: image swap: with nbd.swap that name is taken`,
		"nbd: {swap: 1GiB}\nmachines: [{name: a, address: 10.0.0.1, entry: local}, {name: b, address: 10.0.0.2, entry: local, root: swap-a}]\n": `machine b: with nbd.swap the root name swap-a is`,
	} {
		_, err := Load(write(t, head+text, nil))
		require.ErrorContains(t, err, want, text)
	}
}
