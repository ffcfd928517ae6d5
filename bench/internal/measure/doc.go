// Package measure is what the programs under bench have in common: the CPU time
// and the memory of a server with all its processes, samples that are taken again
// when other programs disturbed them, and the table of medians with goals.
//
// It needs Linux.
package measure
