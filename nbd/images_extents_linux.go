package nbd

// Extents implements [Extenter]: the holes of the image's file.
func (d *imageDevice) Extents(off, n int64, dst []Extent) (int, error) {
	if d.broken.Load() {
		return 0, errImageChanged
	}
	return d.file.Extents(off, n, dst)
}

var _ Extenter = (*imageDevice)(nil)
