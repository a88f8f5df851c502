//! localkube
