//! A network of Pods without root, bridge or proxy.
//!
//! Every Pod has an address 127.x.y.z of its own. Its processes run under a seccomp filter that hands `bind` and `connect`
//! to a [`Supervisor`] in the Pod's shim: a bind of the wildcard or of localhost becomes a bind of the Pod's address, a connect to a
//! Service's address goes straight to one of its endpoints, and what leaves the machine is left alone.
//!
//! How a shim uses it:
//! 1. a thread that does nothing else calls [`install_filter`] and starts every process of the Pod (a filter is inherited by
//!    the children of the *thread* that installed it; the shim's other threads stay unfiltered),
//! 2. another thread runs [`Supervisor::run`] with the listener that `install_filter` returned.
//!
//! Where a filter must be installed in a forked child instead, [`send_listener`] and [`receive_listener`] carry the listener to the shim.
