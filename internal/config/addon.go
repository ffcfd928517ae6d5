package config

import (
	"errors"
	"strings"

	"github.com/seed-3ec230fa/diskless/ltsconf"
	"github.com/seed-3ec230fa/diskless/ltsconf/initrd"
)

// Addon is the second initramfs, which makes a stock image a diskless machine.
type Addon struct {
	Enabled        *bool    `yaml:"enabled"`
	OverlaySize    string   `yaml:"overlay-size"`
	OverlayLabel   string   `yaml:"overlay-label"`
	OverlayKept    bool     `yaml:"overlay-kept"`
	AuthorizedKeys []string `yaml:"authorized-keys"`
	Break          string   `yaml:"break"`
}

// HasAddon reports whether a machine that boots the entry loads the add-on.
func (c *Config) HasAddon(e Entry) bool {
	return len(e.Initrd) > 0 && on(e.Addon) && (c.Addon == nil || on(c.Addon.Enabled)) && (c.ServesTFTP() || c.ServesHTTP())
}

// InitrdOptions are those that all machines have in common.
func (c *Config) InitrdOptions() initrd.Options {
	a := c.Addon
	if a == nil {
		return initrd.Options{}
	}
	o := initrd.Options{OverlaySize: a.OverlaySize, OverlayLabel: a.OverlayLabel, OverlayKept: a.OverlayKept, Break: initrd.Break(a.Break)}
	if len(a.AuthorizedKeys) > 0 {
		o.AuthorizedKeys = map[string][]string{"root": a.AuthorizedKeys}
	}
	return o
}

// SwapImage is the name of the image that swap areas are over.
const SwapImage = "swap"

// SwapRoot is the name of a machine's swap area among the roots.
func SwapRoot(machine string) string { return SwapImage + "-" + machine }

// swap checks that swap areas can be told from roots, and have room.
func (c *checker) swap() {
	if c.NBD == nil || c.NBD.Swap.Bytes == 0 {
		return
	}
	field := &c.NBD.Swap
	if c.Server.State == "" {
		c.errorf(field, "nbd.swap needs a directory for what machines swap out; set server.state")
	}
	if !c.ServesNBD() {
		c.errorf(field, "nbd.swap works only where the nbd role runs")
	}
	if quota := c.NBD.Quota.Bytes; quota > 0 && quota < c.NBD.Swap.Bytes {
		c.errorf(field, "nbd.swap is larger than nbd.quota, which bounds it too")
	}
	for i := range c.Images {
		if c.Images[i].Name == SwapImage {
			c.errorf(&c.Images[i].Name, "image %s: with nbd.swap that name is taken", SwapImage)
		}
	}
	areas := map[string]bool{}
	for i := range c.Machines {
		areas[SwapRoot(c.Machines[i].Name)] = true
	}
	for i := range c.Machines {
		if m := &c.Machines[i]; areas[m.Root] {
			c.errorf(&m.Root, "machine %s: with nbd.swap the root name %s is a machine's swap area", m.Name, m.Root)
		}
	}
}

func (c *checker) addon() {
	c.swap()
	if c.LTSPConf != "" {
		var syntax *ltsconf.SyntaxError
		if _, err := ltsconf.ParseLTSPFile(c.LTSPConf); errors.As(err, &syntax) {
			c.errs = append(c.errs, err) // it has a position of its own
		} else if err != nil {
			c.errorf(&c.LTSPConf, "ltsp.conf: %v", err)
		}
		if c.LTSConf != "" {
			c.errorf(&c.LTSPConf, "ltsp.conf: there is an lts.conf too; a machine's settings come from one of them")
		}
	}
	if c.Addon == nil {
		return
	}
	for i := range c.Addon.AuthorizedKeys {
		if key := &c.Addon.AuthorizedKeys[i]; strings.TrimSpace(*key) == "" || strings.ContainsAny(*key, "\n\x00") {
			c.errorf(key, "addon: authorized-keys: write one line of an authorized_keys file for each key")
		}
	}
	o := c.InitrdOptions()
	if _, err := initrd.Build(nil, nil, &o); err != nil {
		c.errorf(c.Addon, "addon: %s", strings.TrimSuffix(strings.TrimPrefix(err.Error(), "initrd: "), ": invalid argument"))
	}
}
