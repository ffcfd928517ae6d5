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
	o := initrd.Options{OverlaySize: a.OverlaySize, OverlayLabel: a.OverlayLabel, Break: initrd.Break(a.Break)}
	if len(a.AuthorizedKeys) > 0 {
		o.AuthorizedKeys = map[string][]string{"root": a.AuthorizedKeys}
	}
	return o
}

func (c *checker) addon() {
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
