//! localkube-node
