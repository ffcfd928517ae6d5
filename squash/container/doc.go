// Package container opens container images as sources for package squash: the
// archives of "docker save" and "podman save" (before and since the OCI layout
// is in them) and OCI image layouts, as a directory or in a tar archive. No
// daemon, registry or root is needed.
//
//	image, err := container.Open("kubenode.tar", nil)
//	...
//	defer image.Close()
//	err = squash.BuildFile(ctx, "/srv/images/kubenode.squashfs", image, nil)
//
// Manifests are read with go-containerregistry's types; the layers are merged
// by [squash.Layers], for mutate.Extract of that library ignores opaque
// directories and follows hard links to the wrong content.
//
// Every blob is checked against the digest and the size that the manifest
// gives, and every layer against the diff_id in the configuration, while it is
// read: a build from a damaged image fails at the end of the layer, and
// [squash.BuildFile] then leaves nothing behind.
package container
