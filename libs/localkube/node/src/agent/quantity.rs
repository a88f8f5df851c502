//! Kubernetes quantities as numbers: `1500m`, `64Mi`, `2e3`.

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

/// The value in base units; text that is not a quantity counts as 0.
pub fn value(quantity: &Quantity) -> f64 {
    parse(&quantity.0).unwrap_or(0.0)
}

pub fn parse(text: &str) -> Option<f64> {
    let text = text.trim();
    let split = text
        .find(|letter: char| !(letter.is_ascii_digit() || matches!(letter, '.' | '+' | '-')))
        .unwrap_or(text.len());
    let (number, suffix) = text.split_at(split);
    let scale = match suffix {
        "" => 1.0,
        "n" => 1e-9,
        "u" => 1e-6,
        "m" => 1e-3,
        "k" => 1e3,
        "M" => 1e6,
        "G" => 1e9,
        "T" => 1e12,
        "P" => 1e15,
        "E" => 1e18,
        "Ki" => 1024.0,
        "Mi" => 1024.0 * 1024.0,
        "Gi" => 1024.0 * 1024.0 * 1024.0,
        "Ti" => 1024f64.powi(4),
        "Pi" => 1024f64.powi(5),
        "Ei" => 1024f64.powi(6),
        exponent => return text.parse().ok().filter(|_| exponent.starts_with(['e', 'E'])),
    };
    Some(number.parse::<f64>().ok()? * scale)
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn each_suffix_is_read() {
        for (text, wanted) in [
            ("2", 2.0),
            ("1500m", 1.5),
            ("64Mi", 67_108_864.0),
            ("1k", 1000.0),
            ("2e3", 2000.0),
            ("0.5", 0.5),
            ("1E", 1e18),
        ] {
            assert_eq!(parse(text), Some(wanted), "{text}");
        }
        assert_eq!(parse("many"), None);
    }
}
