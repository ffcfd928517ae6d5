//go:build !linux

package squash

// sysStat knows no platform but Linux: elsewhere a directory's files belong to
// root, as those of any source without a Stat.
func sysStat(any) (Stat, bool) { return Stat{}, false }
