//! Where objects come from: a cluster's watches or files; both give the same Snapshot.
