//! localkube-runtimes
