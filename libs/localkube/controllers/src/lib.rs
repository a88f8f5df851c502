//! localkube-controllers
