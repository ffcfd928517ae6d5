package nbd

// Extents implements [Extenter]: the holes of the image's file.
func (d *imageDevice) Extents(off, n int64, dst []Extent) (int, error) {
	if d.broken.Load() {
		return 0, errImageChanged
	}
	// Of a file that was cut all the rest looks like a hole: it must be read,
	// to fail.
	if info, err := d.f.Stat(); (err != nil || info.Size() < d.size) && n > 0 && len(dst) > 0 {
		dst[0] = Extent{Length: n}
		return 1, nil
	}
	return d.holes.Extents(off, n, dst)
}

var _ Extenter = (*imageDevice)(nil)
