package initrd

import "strings"

// Services returns the services that a diskless machine does not start, unless
// KEEP_SYSTEM_SERVICES names them. Those of the first list concern roots whose
// changes are in memory or that are shared; those of the second every root.
func Services() (stateless, all []string) {
	return strings.Fields(statelessServices), strings.Fields(allServices)
}

// Both LTSPs stop most of these: what saves state that is gone at the next
// boot, what keeps a disk in order, what updates a system that comes from an
// image, and what serves if the image is a server's.
const statelessServices = `
	alsa-restore alsa-state alsa-store
	apt-daily apt-daily.timer apt-daily-upgrade apt-daily-upgrade.timer dpkg-db-backup.timer
	packagekit packagekit-offline-update unattended-upgrades fwupd-refresh.timer
	dnsmasq exim4 isc-dhcp-server nfs-kernel-server nfs-server tftpd-hpa x2goserver xrdp xrdp-sesman
	dphys-swapfile e2scrub_all.timer e2scrub_reap fstrim.timer lvm2-lvmetad mdadm
	epoptes grub-common logrotate.timer man-db.timer ModemManager motd-news motd-news.timer
	rsyslog systemd-random-seed systemd-rfkill ureadahead
`

// These would take the root's connection or its address away.
const allServices = `dhcpcd nbd-client nbd-server`

func (s *script) services(settings []Setting, o *Options) {
	stateless, all := Services()
	if len(o.HostKeys) == 0 {
		stateless = append(stateless, "ssh", "sshd", "ssh.socket")
	}
	keep, _ := last(settings, "KEEP_SYSTEM_SERVICES")
	more := make([]string, 0, 3)
	for _, name := range []string{"RM_SYSTEM_SERVICES", "DISABLE_SYSTEM_SERVICES", "MASK_SYSTEM_SERVICES"} {
		if set, ok := last(settings, name); ok {
			more = append(more, "' '"+word(set))
		}
	}
	s.WriteString("services SYSTEM_SERVICES " + quote(strings.Join(stateless, " ")) + " " +
		quote(strings.Join(all, " ")) + strings.Join(more, "") + " " + word(keep) + "\n")
}
