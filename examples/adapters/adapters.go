// Package adapters shows how the packages of this module meet. None imports
// another: each takes a plain function or an interface of the standard
// library, and a few lines of yours join them. Its examples are those lines.
package adapters
