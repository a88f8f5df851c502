//! Short hashes of templates in the alphabet that Kubernetes uses for names.

use serde::Serialize;

/// Letters that form no words.
const ALPHABET: &[u8; 27] = b"bcdfghjklmnpqrstvwxz2456789";

/// A hash of a template's JSON and a collision count; equal templates have equal hashes.
/// (Kubernetes hashes Go's memory layout, so its value is another one; only equality matters.)
pub fn template_hash<T: Serialize>(
    template: &T,
    collisions: Option<i32>,
) -> Result<String, serde_json::Error> {
    let mut hash = fnv1a(
        &serde_json::to_vec(&serde_json::to_value(template)?)?,
        0x811c_9dc5,
    );
    if let Some(count) = collisions {
        hash = fnv1a(&count.to_le_bytes(), hash);
    }
    Ok(hash
        .to_string()
        .bytes()
        .map(|digit| char::from(ALPHABET[usize::from(digit) % ALPHABET.len()]))
        .collect())
}

fn fnv1a(bytes: &[u8], start: u32) -> u32 {
    bytes.iter().fold(start, |hash, byte| {
        (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn equal_templates_have_equal_hashes() {
        let a = template_hash(&json!({"a": 1, "b": 2}), None).unwrap();
        assert_eq!(a, template_hash(&json!({"b": 2, "a": 1}), None).unwrap());
        assert_ne!(a, template_hash(&json!({"a": 1, "b": 3}), None).unwrap());
        assert_ne!(a, template_hash(&json!({"a": 1, "b": 2}), Some(0)).unwrap());
        assert!(a.bytes().all(|byte| ALPHABET.contains(&byte)));
    }
}
