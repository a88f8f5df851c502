//! Amounts of resources, exact in thousandths.

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

/// An amount in thousandths of its unit; saturates far beyond any real amount.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Amount(pub i128);

impl std::ops::AddAssign for Amount {
    fn add_assign(&mut self, other: Self) {
        self.0 = self.0.saturating_add(other.0);
    }
}

impl std::ops::Sub for Amount {
    type Output = Self;
    fn sub(self, other: Self) -> Self {
        Self(self.0.saturating_sub(other.0))
    }
}

const BINARY: [(&str, u32); 6] = [
    ("Ki", 10),
    ("Mi", 20),
    ("Gi", 30),
    ("Ti", 40),
    ("Pi", 50),
    ("Ei", 60),
];
const DECIMAL: [(&str, u32); 6] = [("k", 3), ("M", 6), ("G", 9), ("T", 12), ("P", 15), ("E", 18)];

impl Amount {
    /// A whole number of units.
    #[must_use]
    pub fn whole(units: i64) -> Self {
        Self(i128::from(units) * 1000)
    }

    /// Reads Kubernetes' notation (`100m`, `1.5Gi`, `2e3`); `None` when it is not one.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let end = text
            .find(|c: char| !(c.is_ascii_digit() || matches!(c, '.' | '+' | '-')))
            .unwrap_or(text.len());
        let (number, suffix) = text.split_at(end);
        let negative = number.starts_with('-');
        let digits = number.trim_start_matches(['+', '-']);
        let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
        if whole.is_empty() && fraction.is_empty() {
            return None;
        }
        let mantissa: i128 = format!("{whole}{fraction}").parse().ok()?;
        let scale = u32::try_from(fraction.len()).ok().filter(|scale| *scale <= 15)?;
        let (times, exponent) = if let Some((_, bits)) = BINARY.iter().find(|(name, _)| *name == suffix) {
            (1i128 << bits, 0)
        } else if let Some((_, power)) = DECIMAL.iter().find(|(name, _)| *name == suffix) {
            (1, i32::try_from(*power).ok()?)
        } else {
            match suffix {
                "" => (1, 0),
                "m" => (1, -3),
                "u" => (1, -6),
                "n" => (1, -9),
                _ => (
                    1,
                    suffix
                        .strip_prefix(['e', 'E'])?
                        .parse()
                        .ok()
                        .filter(|power: &i32| power.abs() <= 18)?,
                ),
            }
        };
        let power = exponent + 3 - i32::try_from(scale).ok()?;
        let value = mantissa.checked_mul(times)?;
        let thousandths = if power >= 0 {
            value.checked_mul(10i128.checked_pow(power.unsigned_abs())?)?
        } else {
            let divisor = 10i128.checked_pow(power.unsigned_abs())?;
            value / divisor + i128::from(value % divisor != 0)
        };
        Some(Self(if negative { -thousandths } else { thousandths }))
    }

    /// The amount of a quantity; what cannot be read counts as none.
    #[must_use]
    pub fn of(quantity: &Quantity) -> Self {
        Self::parse(&quantity.0).unwrap_or_default()
    }

    /// Kubernetes' canonical notation, binary for amounts that are whole multiples of 1Ki when `binary`.
    #[must_use]
    pub fn quantity(self, binary: bool) -> Quantity {
        if self.0 % 1000 != 0 {
            return Quantity(format!("{}m", self.0));
        }
        let units = self.0 / 1000;
        if units == 0 {
            return Quantity("0".to_owned());
        }
        if binary {
            for (name, bits) in BINARY.iter().rev() {
                if units % (1i128 << bits) == 0 {
                    return Quantity(format!("{}{name}", units >> bits));
                }
            }
            return Quantity(units.to_string());
        }
        for (name, power) in DECIMAL.iter().rev() {
            let unit = 10i128.pow(*power);
            if units % unit == 0 {
                return Quantity(format!("{}{name}", units / unit));
            }
        }
        Quantity(units.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notations() {
        for (text, thousandths) in [
            ("1", 1000),
            ("100m", 100),
            ("1.5", 1500),
            ("1Ki", 1_024_000),
            ("1.5Gi", 1_610_612_736_000),
            ("2e3", 2_000_000),
            ("5k", 5_000_000),
            ("1u", 1),
            ("-2", -2000),
            (".5", 500),
        ] {
            assert_eq!(Amount::parse(text), Some(Amount(thousandths)), "{text}");
        }
        for text in ["", "x", "1x", "Ki", "1.2.3"] {
            assert_eq!(Amount::parse(text), None, "{text}");
        }
    }

    #[test]
    fn canonical_form() {
        assert_eq!(Amount::whole(2048).quantity(true).0, "2Ki");
        assert_eq!(Amount::whole(2000).quantity(false).0, "2k");
        assert_eq!(Amount(100).quantity(false).0, "100m");
        assert_eq!(Amount::whole(3).quantity(false).0, "3");
    }
}
