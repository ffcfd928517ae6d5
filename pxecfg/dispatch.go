package pxecfg

import (
	"bytes"
	"fmt"
)

// writeDispatcher writes a script that finds out who the machine is and asks
// again. The names it asks for speak of a machine, so they never lead to a
// dispatcher, and there can be no loop. cfg is for machines that are not known
// by then; it may be nil.
func (v *view) writeDispatcher(b *bytes.Buffer, r *request, cfg *Config, c Client) error {
	if r.format == formatGRUB {
		return v.dispatchGRUB(b, r, cfg, c)
	}
	b.WriteString("#!ipxe\n")
	const query = "?mac=${netX/mac:hexhyp}&uuid=${uuid}&hostname=${hostname:uristring}&arch=${buildarch}&platform=${platform}"
	switch {
	case v.http:
		// Relative: the same server, directory and name.
		fmt.Fprintf(b, "chain %s && exit ||\n", escapePath(r.base)+query)
	case v.tree.BaseURL != "":
		fmt.Fprintf(b, "chain %s && exit ||\n", joinURL(v.tree.BaseURL, r.prefix+r.base)+query)
	default:
		// TFTP has no query.
		b.WriteString("chain mac-${netX/mac:hexhyp}.ipxe && exit ||\nchain uuid-${uuid}.ipxe && exit ||\n")
	}
	if cfg == nil {
		b.WriteString("echo The boot server has nothing for this machine: MAC ${netX/mac} UUID ${uuid}\nexit\n")
		return nil
	}
	text, err := cfg.appendIPXE(nil, v.target(r, c))
	b.Write(text)
	return err
}

func (v *view) dispatchGRUB(b *bytes.Buffer, r *request, cfg *Config, c Client) error {
	// Two words, of which the second must not be quoted away. A file that is
	// not there leaves an error message, and the script goes on.
	fmt.Fprintf(b, "configfile %s$net_default_mac\n", grubQuote(v.root+"/"+r.prefix+"grub.cfg-"))
	if cfg == nil {
		b.WriteString("echo \"The boot server has nothing for this machine: MAC $net_default_mac\"\nsleep 5\nexit\n")
		return nil
	}
	text, err := cfg.appendGRUB(nil, v.target(r, c))
	b.Write(text)
	return err
}
