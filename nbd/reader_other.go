//go:build !unix

package nbd

func (b *reader) initRaw() {}
