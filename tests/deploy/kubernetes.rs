//! The Kubernetes manifests, without a cluster: built, and checked against the published schemas.
