//! Kubernetes quantities as numbers: `1500m`, `64Mi`, `2e3`.

use k8s_openapi::api::core::v1::Container;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use crate::os::Resources;

/// What the kernel is to hold a container to. Zero is no limit, as for the kubelet.
pub fn resources(container: &Container) -> Resources {
    let stated = container.resources.clone().unwrap_or_default();
    let whole = |from: &Option<std::collections::BTreeMap<String, Quantity>>, name: &str, unit: f64| {
        let amount = value(from.as_ref()?.get(name)?) / unit;
        // Rounded up; what is larger than any machine saturates.
        (amount > 0.0).then_some(amount.ceil() as u64)
    };
    Resources {
        memory_limit: whole(&stated.limits, "memory", 1.0),
        cpu_limit: whole(&stated.limits, "cpu", 1e-3),
        cpu_request: whole(&stated.requests, "cpu", 1e-3),
    }
}

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
    use super::{parse, resources};
    use crate::os::Resources;
    use k8s_openapi::api::core::v1::Container;

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

    #[test]
    fn what_the_kernel_holds_is_in_bytes_and_thousandths() {
        let container = serde_json::json!({"name": "main", "resources": {
            "limits": {"cpu": "1500m", "memory": "64Mi", "nvidia.com/gpu": "1"}, "requests": {"cpu": "0.1"}}});
        let container: Container = serde_json::from_value(container).unwrap();
        let wanted = Resources {
            memory_limit: Some(64 << 20),
            cpu_limit: Some(1500),
            cpu_request: Some(100),
        };
        assert_eq!(resources(&container), wanted);
        assert_eq!(resources(&Container::default()), Resources::default());
    }
}
