//! localkube-apiserver
