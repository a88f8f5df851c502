//! A network of Pods without root, bridge or proxy.
//!
//! Every Pod has an address 127.x.y.z of its own. Its processes run under a seccomp filter that hands `bind`, `connect` and `accept`
//! to a [`Supervisor`] in the Pod's shim: a bind of the wildcard or of localhost becomes a bind of the Pod's address, a connect to a
//! Service's address goes straight to one of its endpoints, and what leaves the machine is left alone.
//!
//! Other users of the machine can open connections to 127.x.y.z as well. An accept therefore gives a Pod only connections whose other end is
//! of the Pod's own OS user or of root, and resets the others.
//!
//! On a Node of a real cluster, whose API server refuses loopback endpoints, Pods have addresses of the Node's [`PodCidr`] instead, which
//! must be local to the machine (`ip route add local CIDR dev lo`); connections come from other machines there, and none is refused.
//!
//! How a shim uses it:
//! 1. a thread that does nothing else calls [`install_filter`] and starts every process of the Pod (a filter is inherited by
//!    the children of the *thread* that installed it; the shim's other threads stay unfiltered),
//! 2. another thread runs [`Supervisor::run`] with the listener that `install_filter` returned.
//!
//! Limits: datagrams that are sent to a Service without a `connect` do not arrive; a client that binds the wildcard with port 0 before it
//! connects gets the Pod's address and cannot leave the machine; programs of another word size than the machine's are not filtered; for
//! an ordinary user the filter sets `no_new_privs`, so `sudo` does not work in a Pod. Datagrams are not looked at: another user may send
//! them to a Pod. A client outside any Pod that closes its connection before the Pod accepts it is refused, since the kernel does not tell
//! whose it was. A signal whose handler does not restart calls (Python's do not) may end a bind with `EINTR`, if it comes in the tenth of a
//! millisecond that a bind takes.
//!
//! Where a filter must be installed in a forked child instead, [`send_listener`] and [`receive_listener`] carry the listener to the shim.

#[cfg(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")))]
mod accepts;
mod address;
mod cidr;
mod names;
mod resolver;
mod rewrite;
mod table;
mod view;

#[cfg(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")))]
mod connects;
#[cfg(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")))]
mod filter;
#[cfg(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")))]
mod listeners;
#[cfg(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")))]
mod owner;
#[cfg(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")))]
mod supervisor;
#[cfg(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")))]
mod sys;
#[cfg(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")))]
mod undelivered;
#[cfg(not(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64"))))]
mod unsupported;

pub use address::AddressPool;
pub use cidr::PodCidr;
#[cfg(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")))]
pub use filter::{install_filter, receive_listener, send_listener, supported};
pub use names::write_hosts;
pub use resolver::Resolver;
#[cfg(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")))]
pub use supervisor::Supervisor;
pub use table::{Protocol, ServiceKey, ServiceTable};
#[cfg(not(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64"))))]
pub use unsupported::{Supervisor, install_filter, receive_listener, send_listener, supported};
pub use view::ClusterView;
