use std::sync::Arc;

/// A parameter of a statement. Booleans are stored as 0 and 1, JSON and times as text.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// SQL NULL of a text column.
    NullText,
    /// SQL NULL of an integer column.
    NullInt,
    /// SQL NULL of a floating-point column.
    NullReal,
    /// SQL NULL of a bytes column.
    NullBytes,
    /// `BIGINT`.
    Int(i64),
    /// `DOUBLE PRECISION`.
    Real(f64),
    /// `TEXT`.
    Text(String),
    /// `{{bytes}}`.
    Bytes(Arc<[u8]>),
}

macro_rules! from {
    ($($type:ty => $variant:ident, $null:ident, $convert:expr;)*) => {$(
        impl From<$type> for Value {
            fn from(value: $type) -> Self {
                let convert: fn($type) -> _ = $convert;
                Value::$variant(convert(value))
            }
        }
        impl From<Option<$type>> for Value {
            fn from(value: Option<$type>) -> Self {
                value.map_or(Value::$null, Value::from)
            }
        }
    )*};
}

from! {
    i64 => Int, NullInt, |v| v;
    i32 => Int, NullInt, i64::from;
    u32 => Int, NullInt, i64::from;
    bool => Int, NullInt, i64::from;
    f64 => Real, NullReal, |v| v;
    String => Text, NullText, |v| v;
    &str => Text, NullText, str::to_owned;
    &String => Text, NullText, |v| v.clone();
    jiff::Timestamp => Text, NullText, |v| format!("{v:.9}");
    serde_json::Value => Text, NullText, |v| v.to_string();
    &serde_json::Value => Text, NullText, |v| v.to_string();
    Vec<u8> => Bytes, NullBytes, Arc::from;
    &[u8] => Bytes, NullBytes, |v| Arc::from(v);
}
