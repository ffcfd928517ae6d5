package app

import (
	"cmp"
	"slices"
	"strings"

	"github.com/seed-3ec230fa/diskless/internal/config"
	"github.com/seed-3ec230fa/diskless/ltsconf"
	"github.com/seed-3ec230fa/diskless/ltsconf/initrd"
	"github.com/seed-3ec230fa/diskless/pxecfg"
)

// ltsClient is the machine as sections name it. The name is the
// configuration's: what a client calls itself could be another machine's section.
func ltsClient(c pxecfg.Client, m *config.Machine) ltsconf.Client {
	who := ltsconf.Client{IP: c.IP, MAC: c.MAC}
	if m != nil {
		who.Hostname = m.Name
	}
	return who
}

// settings are what the file of settings has for a machine, as far as a server
// can tell, in the order in which clients work through them. The file is read
// anew, so that an edit counts at once.
func (a *App) settings(c pxecfg.Client, m *config.Machine) ([]initrd.Setting, error) {
	var all ltsconf.Settings
	switch {
	case a.cfg.LTSConf != "":
		f, err := ltsconf.ParseFile(a.cfg.LTSConf)
		if err != nil {
			return nil, err
		}
		all = ltsconf.Collect(f.Resolve(ltsClient(c, m)))
	case a.cfg.LTSPConf != "":
		f, err := ltsconf.ParseLTSPFile(a.cfg.LTSPConf)
		if err != nil {
			return nil, err
		}
		who := ltsconf.LTSPClient{Client: ltsClient(c, m), Applet: "init"}
		who.Env = map[string]string{
			"HOSTNAME": who.Hostname, "IP_ADDRESS": c.IP.Unmap().String(), "MAC_ADDRESS": c.MAC.String(), "SERVER": a.cfg.Server.Address.String(),
		}
		if err := f.Stops(who); err != nil {
			return nil, err
		}
		all = ltsconf.Collect(f.Resolve(who))
		for i := range all {
			if all[i].Name == "HOSTNAME" {
				mac := strings.ReplaceAll(c.MAC.String(), ":", "")
				all[i].Value.Raw = strings.NewReplacer("%{MAC}", mac, "%{IP}", hostNumber(c)).Replace(all[i].Value.Raw)
			}
		}
	}
	out := initrdSettings(all)
	if !slices.ContainsFunc(out, func(s initrd.Setting) bool { return s.Name == "SERVER" }) {
		// Clients of LTSP know it from DHCP, and values refer to it.
		out = slices.Insert(out, 0, initrd.Setting{Name: "SERVER", Value: a.cfg.Server.Address.String()})
	}
	return out, nil
}

// hostNumber is the last part of the address.
func hostNumber(c pxecfg.Client) string {
	ip := c.IP.Unmap().String()
	return ip[strings.LastIndexByte(ip, '.')+1:]
}

// initrdSettings puts families in their order, behind what their values may
// refer to. Those of LTSP 19 that are none of LTSP 5 go by their names.
func initrdSettings(all ltsconf.Settings) []initrd.Setting {
	var sorted, applets ltsconf.Settings
	for _, s := range all {
		switch _, family := ltsconf.FamilyOf(s.Name); {
		case strings.HasPrefix(s.Name, "PRE_") || strings.HasPrefix(s.Name, "POST_"):
			applets = append(applets, s)
		case !family:
			sorted = append(sorted, s)
		}
	}
	for _, f := range []ltsconf.Family{ltsconf.Module, ltsconf.Hosts, ltsconf.Fstab, ltsconf.Crontab, ltsconf.InitCommand, ltsconf.Preinit, ltsconf.RCFile} {
		sorted = append(sorted, f.Of(all)...)
	}
	slices.SortStableFunc(applets, func(x, y ltsconf.Setting) int { return cmp.Compare(x.Name, y.Name) })
	var out []initrd.Setting
	for _, s := range append(sorted, applets...) {
		text, ok := s.Value.Literal()
		if !ok { // only the machine can expand it
			text = s.Value.Raw
		}
		out = append(out, initrd.Setting{Name: s.Name, Value: text, Expand: !ok})
	}
	return out
}
