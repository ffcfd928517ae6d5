package pxecfg

import "strings"

// UBoot is what a U-Boot says of its board, from its environment. Each may be
// empty.
type UBoot struct {
	Arch, SoC, Board string
	// UUID is the variable pxeuuid, which U-Boot uses as it is. Empty means
	// the client's UUID in the spelling of the wire.
	UUID string
}

// UBootNames returns the configuration files that U-Boot's pxe command asks
// for, in its order and relative to the directory of its boot file. Unlike
// PXELINUX it asks for any UUID; it has names of its board before "default";
// and with option 209 it asks for that file and no other.
func (c Client) UBootNames(u UBoot) []string {
	if c.ConfigFile != "" {
		return []string{c.ConfigFile}
	}
	names := make([]string, 0, 15)
	if u.UUID != "" {
		names = append(names, pxelinuxDir+u.UUID)
	} else if b, ok := parseUUID(c.UUID); ok {
		names = append(names, pxelinuxDir+FormatUUID(b))
	}
	if len(c.MAC) == 6 { // it knows Ethernet only
		names = append(names, string(c.ethernet().appendTypedMAC([]byte(pxelinuxDir))))
	}
	names = c.appendLadder(names, pxelinuxDir)
	name := pxelinuxDir + "default"
	var boards []string
	for _, part := range []string{u.Arch, u.SoC, u.Board} {
		if part == "" {
			break
		}
		name += "-" + part
		boards = append(boards, name)
	}
	for i := len(boards) - 1; i >= 0; i-- {
		names = append(names, boards[i])
	}
	return append(names, pxelinuxDir+"default")
}

// UBootPath returns where U-Boot looks for a name of its configuration: always
// beside or below its boot file, even with a slash in front.
func UBootPath(bootFile, name string) string {
	return bootFile[:strings.LastIndexByte(bootFile, '/')+1] + name
}
