//! Kubernetes quantities (`500m`, `1Gi`, `1e3`): parsing, canonical form, arithmetic.

/// What Kubernetes answers to a text that is no quantity.
pub const SYNTAX: &str =
    "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'";

/// The form in which a quantity was written and is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    Binary,
    Decimal,
    Exponent,
}

/// An exact amount in billionths.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quantity {
    pub nanos: i128,
    pub format: Format,
}

const NANO: i128 = 1_000_000_000;
const BINARY: [(&str, u32); 6] = [
    ("Ki", 10),
    ("Mi", 20),
    ("Gi", 30),
    ("Ti", 40),
    ("Pi", 50),
    ("Ei", 60),
];
const DECIMAL: [(&str, i32); 10] = [
    ("n", -9),
    ("u", -6),
    ("m", -3),
    ("", 0),
    ("k", 3),
    ("M", 6),
    ("G", 9),
    ("T", 12),
    ("P", 15),
    ("E", 18),
];

impl Quantity {
    pub fn parse(text: &str) -> Option<Self> {
        let digits_end = text
            .char_indices()
            .find(|(i, c)| !(c.is_ascii_digit() || *c == '.' || (*i == 0 && (*c == '+' || *c == '-'))))
            .map_or(text.len(), |(i, _)| i);
        let (number, suffix) = text.split_at(digits_end);
        let (negative, number) = match number.strip_prefix('-') {
            Some(rest) => (true, rest),
            None => (false, number.strip_prefix('+').unwrap_or(number)),
        };
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if (whole.is_empty() && fraction.is_empty()) || fraction.contains('.') {
            return None;
        }
        let (scale, format) = scale_of(suffix)?;
        let digits: String = format!("{whole}{fraction}");
        let mantissa: i128 = if digits.is_empty() {
            0
        } else {
            digits.parse().ok()?
        };
        let places = u32::try_from(fraction.len()).ok()?;
        // value = mantissa / 10^places * scale, rounded up to a billionth
        let (num, den) = match scale {
            Scale::Binary(bits) => (
                mantissa.checked_mul(1i128 << bits)?.checked_mul(NANO)?,
                10i128.checked_pow(places)?,
            ),
            Scale::Decimal(exp) => {
                let e = exp + 9 - i32::try_from(places).ok()?;
                if e >= 0 {
                    (mantissa.checked_mul(10i128.checked_pow(e.unsigned_abs())?)?, 1)
                } else {
                    (mantissa, 10i128.checked_pow(e.unsigned_abs())?)
                }
            }
        };
        let nanos = num / den + i128::from(num % den != 0);
        Some(Self {
            nanos: if negative { -nanos } else { nanos },
            format,
        })
    }

    /// Whole units, rounded up.
    pub fn value(&self) -> i128 {
        self.nanos / NANO + i128::from(self.nanos % NANO > 0)
    }
}

enum Scale {
    Binary(u32),
    Decimal(i32),
}

fn scale_of(suffix: &str) -> Option<(Scale, Format)> {
    if let Some((_, bits)) = BINARY.iter().find(|(s, _)| *s == suffix) {
        return Some((Scale::Binary(*bits), Format::Binary));
    }
    if let Some((_, exp)) = DECIMAL.iter().find(|(s, _)| *s == suffix) {
        return Some((Scale::Decimal(*exp), Format::Decimal));
    }
    let exp: i32 = suffix.strip_prefix(['e', 'E'])?.parse().ok()?;
    (-20..=30)
        .contains(&exp)
        .then_some((Scale::Decimal(exp), Format::Exponent))
}

impl std::fmt::Display for Quantity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let n = self.nanos;
        if n == 0 {
            return f.write_str("0");
        }
        let whole = n % NANO == 0;
        if self.format == Format::Binary && whole && (n / NANO).abs() >= 1024 {
            let units = n / NANO;
            for (suffix, bits) in BINARY.iter().rev() {
                if units % (1i128 << bits) == 0 {
                    return write!(f, "{}{suffix}", units >> bits);
                }
            }
            return write!(f, "{units}");
        }
        if self.format == Format::Binary && whole {
            return write!(f, "{}", n / NANO);
        }
        // The largest power of a thousand that leaves a whole number.
        let mut exp = -9i32;
        let mut mantissa = n;
        while mantissa % 1000 == 0 && exp < 18 {
            mantissa /= 1000;
            exp += 3;
        }
        if self.format == Format::Exponent {
            return if exp == 0 {
                write!(f, "{mantissa}")
            } else {
                write!(f, "{mantissa}e{exp}")
            };
        }
        let suffix = DECIMAL.iter().find(|(_, e)| *e == exp).map_or("", |(s, _)| s);
        write!(f, "{mantissa}{suffix}")
    }
}

/// The canonical text of a quantity, `None` when it is none.
pub fn canonical(text: &str) -> Option<String> {
    Quantity::parse(text).map(|q| q.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn canonical_forms() {
        for (given, wanted) in [
            ("1000m", "1"),
            ("0.5", "500m"),
            ("1024Mi", "1Gi"),
            ("1.5Gi", "1536Mi"),
            ("100k", "100k"),
            ("1000k", "1M"),
            ("2", "2"),
            ("0", "0"),
            ("1e3", "1e3"),
            ("0.1Gi", "107374182400m"),
            ("512Ki", "512Ki"),
            ("1500", "1500"),
        ] {
            assert_eq!(canonical(given).as_deref(), Some(wanted), "{given}");
        }
        assert_eq!(canonical("1g"), None);
        assert_eq!(canonical("abc"), None);
        assert_eq!(canonical(""), None);
    }
}
