//! The range of addresses that a Node's Pods have.

use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

/// An IPv4 range such as `10.244.7.0/24`: between 8 and 65536 addresses, none of them loopback.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PodCidr {
    first: Ipv4Addr,
    bits: u8,
}

impl PodCidr {
    /// Whether an address is in the range.
    pub fn contains(self, ip: Ipv4Addr) -> bool {
        u32::from(ip).wrapping_sub(self.first()) < self.size()
    }

    /// The address of the Node itself, for who calls from Pods and for Pods that are called.
    pub fn node(self) -> Ipv4Addr {
        Ipv4Addr::from(self.first() + 1)
    }

    pub(crate) fn first(self) -> u32 {
        u32::from(self.first)
    }

    pub(crate) fn size(self) -> u32 {
        1 << (32 - self.bits)
    }
}

impl fmt::Display for PodCidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.first, self.bits)
    }
}

impl FromStr for PodCidr {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = |why: &str| format!("{text:?} {why}; write one such as 10.244.7.0/24");
        let (ip, bits) = text.split_once('/').ok_or_else(|| wrong("is no range"))?;
        let first: Ipv4Addr = ip.parse().map_err(|_| wrong("is no IPv4 range"))?;
        let bits: u8 = bits.parse().map_err(|_| wrong("is no IPv4 range"))?;
        if !(16..=29).contains(&bits) {
            return Err(wrong("is not between /16 and /29"));
        }
        let range = Self { first, bits };
        if !u32::from(first).is_multiple_of(range.size()) {
            return Err(wrong("does not begin where a range of its size begins"));
        }
        if first.is_loopback() || first.is_unspecified() || first.is_multicast() {
            return Err(wrong("is not a range that Pods of a cluster may have"));
        }
        Ok(range)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_is_read_and_checked() {
        let range: PodCidr = "10.244.7.0/24".parse().unwrap();
        assert_eq!(range.to_string(), "10.244.7.0/24");
        assert_eq!(range.node(), Ipv4Addr::new(10, 244, 7, 1));
        for (ip, inside) in [
            ("10.244.7.0", true),
            ("10.244.7.255", true),
            ("10.244.8.0", false),
            ("10.244.6.255", false),
        ] {
            assert_eq!(range.contains(ip.parse().unwrap()), inside, "{ip}");
        }
        for wrong in [
            "10.244.7.0",
            "x/24",
            "10.244.7.0/30",
            "10.0.0.0/8",
            "10.244.7.1/24",
            "127.20.0.0/16",
        ] {
            let error = wrong.parse::<PodCidr>().unwrap_err();
            assert!(
                error.contains(wrong) && error.contains("10.244.7.0/24"),
                "{error}"
            );
        }
    }
}
