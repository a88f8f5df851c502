//! What a Pod means by an address, and what it is on this machine. Pure.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4};

/// Addresses of Services (`127.96.0.0/12`).
pub fn is_service(ip: Ipv4Addr) -> bool {
    let [a, b, ..] = ip.octets();
    a == 127 && b & 0xF0 == 96
}

/// What the Pod with address `pod` calls localhost: `127.0.0.0/16` where other addresses of 127/8 are other Pods', else all of 127/8.
fn is_localhost(ip: Ipv4Addr, pod: Ipv4Addr) -> bool {
    let [a, b, ..] = ip.octets();
    a == 127 && (b == 0 || !pod.is_loopback())
}

/// The IPv4 address that an address stands for inside a Pod; `None` for true IPv6.
fn as_v4(ip: IpAddr) -> Option<Ipv4Addr> {
    match ip {
        IpAddr::V4(ip) => Some(ip),
        IpAddr::V6(ip) if ip.is_unspecified() => Some(Ipv4Addr::UNSPECIFIED),
        IpAddr::V6(ip) if ip.is_loopback() => Some(Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) => ip.to_ipv4_mapped(),
    }
}

/// The same family as the address that was asked for, since the socket has that family.
pub fn in_family_of(asked: SocketAddr, to: SocketAddrV4) -> SocketAddr {
    match asked {
        SocketAddr::V4(_) => to.into(),
        SocketAddr::V6(_) => SocketAddr::new(to.ip().to_ipv6_mapped().into(), to.port()),
    }
}

/// What becomes of a `bind`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bind {
    Leave,
    /// Not an address of this Pod.
    NotOurs,
    /// The wildcard or localhost: the Pod's address instead.
    At(SocketAddr),
}

/// Decides about a `bind` to `asked` in the Pod with address `pod`.
pub fn bind(asked: SocketAddr, pod: Ipv4Addr) -> Bind {
    match as_v4(asked.ip()) {
        Some(ip) if ip.is_unspecified() || is_localhost(ip, pod) => {
            Bind::At(in_family_of(asked, SocketAddrV4::new(pod, asked.port())))
        }
        Some(ip) if ip != pod && (ip.is_loopback() || !pod.is_loopback()) => Bind::NotOurs,
        _ => Bind::Leave,
    }
}

/// What becomes of a `connect`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Connect {
    Leave,
    /// Localhost, or a Pod: to this address.
    Pod(SocketAddrV4),
    /// One of the endpoints of this Service.
    Service(SocketAddrV4),
    /// One of the endpoints of the Service that has this address, if one has; else, if it is an address of this machine, there as the
    /// Pod; else it is left alone.
    Outside(SocketAddrV4),
}

/// Whether an address may be a name server of the machine on its loopback (systemd-resolved's `127.0.0.53`, dnsmasq).
pub fn may_be_name_server(asked: SocketAddr) -> bool {
    asked.port() == 53 && as_v4(asked.ip()).is_some_and(|ip| is_localhost(ip, Ipv4Addr::LOCALHOST))
}

/// Whether `resolv.conf` names this address as a name server.
pub fn is_name_server(asked: SocketAddr, resolv_conf: &str) -> bool {
    let servers = resolv_conf
        .lines()
        .filter_map(|l| l.trim().strip_prefix("nameserver"));
    servers
        .filter_map(|l| l.trim().parse::<IpAddr>().ok())
        .any(|ip| as_v4(ip) == as_v4(asked.ip()))
}

/// Decides about a `connect` to `asked` in the Pod with address `pod`.
pub fn connect(asked: SocketAddr, pod: Ipv4Addr) -> Connect {
    match as_v4(asked.ip()) {
        Some(ip) if ip.is_unspecified() || is_localhost(ip, pod) => {
            Connect::Pod(SocketAddrV4::new(pod, asked.port()))
        }
        Some(ip) if is_service(ip) => Connect::Service(SocketAddrV4::new(ip, asked.port())),
        Some(ip) if ip.is_loopback() => Connect::Pod(SocketAddrV4::new(ip, asked.port())),
        Some(ip) if !pod.is_loopback() => Connect::Outside(SocketAddrV4::new(ip, asked.port())),
        _ => Connect::Leave,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const POD: Ipv4Addr = Ipv4Addr::new(127, 20, 1, 7);

    fn at(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    #[test]
    fn a_bind_of_everything_is_a_bind_of_the_pod() {
        for (asked, expected) in [
            ("0.0.0.0:80", Bind::At(at("127.20.1.7:80"))),
            ("127.0.0.1:0", Bind::At(at("127.20.1.7:0"))),
            ("127.0.1.1:80", Bind::At(at("127.20.1.7:80"))),
            ("[::]:80", Bind::At(at("[::ffff:127.20.1.7]:80"))),
            ("[::1]:80", Bind::At(at("[::ffff:127.20.1.7]:80"))),
            ("[::ffff:0.0.0.0]:80", Bind::At(at("[::ffff:127.20.1.7]:80"))),
            ("127.20.1.7:80", Bind::Leave),
            ("127.20.1.8:80", Bind::NotOurs),
            ("192.168.1.2:80", Bind::Leave),
            ("[fe80::1]:80", Bind::Leave),
        ] {
            assert_eq!(bind(at(asked), POD), expected, "{asked}");
        }
    }

    #[test]
    fn a_connect_goes_to_the_pod_a_service_or_out() {
        let v4 = |t: &str| t.parse::<SocketAddrV4>().unwrap();
        for (asked, expected) in [
            ("127.0.0.1:80", Connect::Pod(v4("127.20.1.7:80"))),
            ("[::1]:80", Connect::Pod(v4("127.20.1.7:80"))),
            ("0.0.0.0:80", Connect::Pod(v4("127.20.1.7:80"))),
            ("127.20.9.9:80", Connect::Pod(v4("127.20.9.9:80"))),
            ("127.96.0.1:443", Connect::Service(v4("127.96.0.1:443"))),
            ("127.111.255.255:1", Connect::Service(v4("127.111.255.255:1"))),
            ("127.112.0.1:1", Connect::Pod(v4("127.112.0.1:1"))),
            ("[::ffff:127.96.0.1]:443", Connect::Service(v4("127.96.0.1:443"))),
            ("93.184.216.34:443", Connect::Leave),
            ("[2001:db8::1]:443", Connect::Leave),
        ] {
            assert_eq!(connect(at(asked), POD), expected, "{asked}");
        }
    }

    #[test]
    fn a_pod_of_a_cluster_has_no_other_address() {
        let pod = Ipv4Addr::new(10, 244, 7, 9);
        let v4 = |t: &str| t.parse::<SocketAddrV4>().unwrap();
        for (asked, expected) in [
            ("0.0.0.0:80", Bind::At(at("10.244.7.9:80"))),
            ("127.20.1.7:80", Bind::At(at("10.244.7.9:80"))),
            ("10.244.7.9:80", Bind::Leave),
            ("10.244.7.10:80", Bind::NotOurs),
            ("192.168.1.2:80", Bind::NotOurs),
            ("[fe80::1]:80", Bind::Leave),
        ] {
            assert_eq!(bind(at(asked), pod), expected, "{asked}");
        }
        for (asked, expected) in [
            ("127.0.0.1:80", Connect::Pod(v4("10.244.7.9:80"))),
            ("127.20.9.9:80", Connect::Pod(v4("10.244.7.9:80"))),
            ("127.96.0.1:443", Connect::Pod(v4("10.244.7.9:443"))),
            ("10.96.0.1:443", Connect::Outside(v4("10.96.0.1:443"))),
            ("[::ffff:10.244.7.10]:80", Connect::Outside(v4("10.244.7.10:80"))),
            ("[2001:db8::1]:443", Connect::Leave),
        ] {
            assert_eq!(connect(at(asked), pod), expected, "{asked}");
        }
    }

    #[test]
    fn the_machines_name_servers_are_known() {
        let conf = "# nameserver 127.0.0.9\nsearch x\nnameserver 127.0.0.53\n nameserver 8.8.8.8\n";
        assert!(may_be_name_server(at("127.0.0.53:53")) && is_name_server(at("127.0.0.53:53"), conf));
        assert!(!is_name_server(at("127.0.0.9:53"), conf));
        assert!(!may_be_name_server(at("127.0.0.53:80")));
        assert!(!may_be_name_server(at("8.8.8.8:53")));
    }

    proptest! {
        #[test]
        fn nothing_of_the_hosts_loopback_is_reached(ip in any::<u32>(), port in any::<u16>(), v6 in any::<bool>()) {
            let ip = Ipv4Addr::from((ip & 0x00FF_FFFF) | 0x7F00_0000);
            let asked = if v6 { SocketAddr::new(ip.to_ipv6_mapped().into(), port) } else { SocketAddr::new(ip.into(), port) };
            if let Connect::Pod(to) = connect(asked, POD) {
                prop_assert!(to.ip().is_loopback() && !is_localhost(*to.ip(), POD) && !is_service(*to.ip()));
                prop_assert_eq!(to.port(), port);
            }
            if let Bind::At(to) = bind(asked, POD) {
                prop_assert_eq!(to.is_ipv6(), asked.is_ipv6());
                prop_assert_eq!(to.port(), port);
            }
            prop_assert_ne!(connect(asked, POD), Connect::Leave);
        }
    }
}
