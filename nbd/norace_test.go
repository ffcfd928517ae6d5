//go:build !race

package nbd_test

const underRace = false
