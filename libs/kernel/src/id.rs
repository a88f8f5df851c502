//! Identifiers and names.

/// A new identifier: a UUID of version 7, so that ids sort by time.
pub fn new_id() -> String {
    uuid::Uuid::now_v7().to_string()
}

/// `len` random characters that are legal in a Kubernetes name and never spell a word (no vowels).
pub fn random_suffix(len: usize) -> String {
    const ALPHABET: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
    (0..len)
        .map(|_| char::from(ALPHABET[rand::random_range(0..ALPHABET.len())]))
        .collect()
}

/// Whether `name` is an RFC 1123 label: at most 63 of `[a-z0-9-]`, with an alphanumeric at both ends.
pub fn is_dns_label(name: &str) -> bool {
    let alnum = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = name.as_bytes();
    matches!((bytes.first(), bytes.last()), (Some(&a), Some(&z)) if alnum(a) && alnum(z))
        && bytes.len() <= 63
        && bytes.iter().all(|&b| alnum(b) || b == b'-')
}

/// Whether `name` is an RFC 1123 subdomain: labels joined by dots, at most 253 characters.
pub fn is_dns_subdomain(name: &str) -> bool {
    name.len() <= 253 && name.split('.').all(is_dns_label)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_follow_rfc_1123() {
        for good in ["a", "a-b", "0a", &"x".repeat(63)] {
            assert!(is_dns_label(good), "{good}");
        }
        for bad in ["", "-a", "a-", "A", "a_b", "a.b", &"x".repeat(64)] {
            assert!(!is_dns_label(bad), "{bad}");
        }
        assert!(is_dns_subdomain("a.b-c.d") && !is_dns_subdomain("a..b"));
    }

    #[test]
    fn suffixes_are_labels_of_the_asked_length() {
        let suffix = random_suffix(8);
        assert_eq!(suffix.len(), 8);
        assert!(is_dns_label(&suffix));
        assert_ne!(suffix, random_suffix(8));
    }
}
