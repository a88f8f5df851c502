//! String formats of schemas that are checked; others are ignored, as in Kubernetes.

use std::net::{Ipv4Addr, Ipv6Addr};

/// Whether `s` has the format; unknown formats match everything.
pub fn matches(format: &str, s: &str) -> bool {
    match format {
        "date-time" | "datetime" => s.parse::<jiff::Timestamp>().is_ok(),
        "date" => s.parse::<jiff::civil::Date>().is_ok(),
        "ipv4" => s.parse::<Ipv4Addr>().is_ok(),
        "ipv6" => s.parse::<Ipv6Addr>().is_ok(),
        "uuid" | "uuid4" => uuid::Uuid::try_parse(s).is_ok(),
        "byte" => {
            use base64::Engine as _;
            base64::engine::general_purpose::STANDARD.decode(s).is_ok()
        }
        "uri" => s.parse::<http::Uri>().is_ok_and(|u| u.scheme().is_some()) || s.starts_with('/'),
        "email" => s
            .split_once('@')
            .is_some_and(|(a, b)| !a.is_empty() && !b.is_empty()),
        "hostname" => crate::meta::subdomain_problems(&s.to_lowercase()).is_empty(),
        "duration" => duration(s),
        _ => true,
    }
}

/// Go's durations: `1h30m`, `1.5s`; also `3 days` and the like are accepted by the real server, which we leave out.
fn duration(s: &str) -> bool {
    let mut rest = s.strip_prefix(['-', '+']).unwrap_or(s);
    if rest == "0" {
        return true;
    }
    let mut any = false;
    while !rest.is_empty() {
        let digits = rest
            .find(|c: char| !c.is_ascii_digit() && c != '.')
            .unwrap_or(rest.len());
        if digits == 0 {
            return false;
        }
        let unit_and_more = &rest[digits..];
        let unit = ["ns", "us", "µs", "ms", "h", "m", "s"]
            .iter()
            .find(|u| unit_and_more.starts_with(**u));
        let Some(unit) = unit else { return false };
        rest = &unit_and_more[unit.len()..];
        any = true;
    }
    any
}
