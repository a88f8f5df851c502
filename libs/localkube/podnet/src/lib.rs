//! localkube-podnet
