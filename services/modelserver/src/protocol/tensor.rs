use super::{Datatype, InferError};

/// Elements of a tensor, row-major and contiguous.
#[derive(Debug, Clone, PartialEq)]
pub enum Data {
    Bool(Vec<bool>),
    Uint8(Vec<u8>),
    Uint16(Vec<u16>),
    Uint32(Vec<u32>),
    Uint64(Vec<u64>),
    Int8(Vec<i8>),
    Int16(Vec<i16>),
    Int32(Vec<i32>),
    Int64(Vec<i64>),
    /// Bit patterns of IEEE half floats.
    Fp16(Vec<u16>),
    Fp32(Vec<f32>),
    Fp64(Vec<f64>),
    Bytes(Vec<Vec<u8>>),
}

/// A named array.
#[derive(Debug, Clone, PartialEq)]
pub struct Tensor {
    /// Name of the input or output.
    pub name: String,
    /// Dimensions; the product is the number of elements.
    pub shape: Vec<usize>,
    /// Elements.
    pub data: Data,
}

/// Calls `$body` with `$values` bound to the vector of whatever type.
macro_rules! each {
    ($data:expr, $values:ident => $body:expr) => {
        match $data {
            Data::Bool($values) => $body,
            Data::Uint8($values) => $body,
            Data::Uint16($values) | Data::Fp16($values) => $body,
            Data::Uint32($values) => $body,
            Data::Uint64($values) => $body,
            Data::Int8($values) => $body,
            Data::Int16($values) => $body,
            Data::Int32($values) => $body,
            Data::Int64($values) => $body,
            Data::Fp32($values) => $body,
            Data::Fp64($values) => $body,
            Data::Bytes($values) => $body,
        }
    };
}

impl Data {
    /// Number of elements.
    pub fn len(&self) -> usize {
        each!(self, values => values.len())
    }

    /// Whether there is no element.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Some of the elements.
    #[must_use]
    pub fn part(&self, range: std::ops::Range<usize>) -> Self {
        macro_rules! part {
            ($($variant:ident),*) => {
                match self {
                    $(Self::$variant(values) => Self::$variant(values[range].to_vec()),)*
                }
            };
        }
        part!(
            Bool, Uint8, Uint16, Uint32, Uint64, Int8, Int16, Int32, Int64, Fp16, Fp32, Fp64, Bytes
        )
    }

    /// Element type.
    pub fn datatype(&self) -> Datatype {
        match self {
            Self::Bool(_) => Datatype::Bool,
            Self::Uint8(_) => Datatype::Uint8,
            Self::Uint16(_) => Datatype::Uint16,
            Self::Uint32(_) => Datatype::Uint32,
            Self::Uint64(_) => Datatype::Uint64,
            Self::Int8(_) => Datatype::Int8,
            Self::Int16(_) => Datatype::Int16,
            Self::Int32(_) => Datatype::Int32,
            Self::Int64(_) => Datatype::Int64,
            Self::Fp16(_) => Datatype::Fp16,
            Self::Fp32(_) => Datatype::Fp32,
            Self::Fp64(_) => Datatype::Fp64,
            Self::Bytes(_) => Datatype::Bytes,
        }
    }

    /// As 32-bit floats, the way numpy's `astype(float32)` rounds; `None` for BYTES.
    pub fn into_f32(self) -> Option<Vec<f32>> {
        Some(match self {
            Self::Fp32(values) => values,
            Self::Fp64(values) => values.into_iter().map(|value| value as f32).collect(),
            Self::Int64(values) => values.into_iter().map(|value| value as f32).collect(),
            Self::Int32(values) => values.into_iter().map(|value| value as f32).collect(),
            Self::Int16(values) => values.into_iter().map(f32::from).collect(),
            Self::Int8(values) => values.into_iter().map(f32::from).collect(),
            Self::Uint64(values) => values.into_iter().map(|value| value as f32).collect(),
            Self::Uint32(values) => values.into_iter().map(|value| value as f32).collect(),
            Self::Uint16(values) => values.into_iter().map(f32::from).collect(),
            Self::Uint8(values) => values.into_iter().map(f32::from).collect(),
            Self::Bool(values) => values
                .into_iter()
                .map(|value| if value { 1.0 } else { 0.0 })
                .collect(),
            Self::Fp16(values) => values.into_iter().map(half_to_f32).collect(),
            Self::Bytes(_) => return None,
        })
    }

    /// The elements in the binary tensor form: little-endian, BYTES each with a 32-bit length before it.
    pub fn to_le_bytes(&self) -> Vec<u8> {
        fn flat<T: Copy, const N: usize>(values: &[T], bytes: impl Fn(T) -> [u8; N]) -> Vec<u8> {
            let mut out = Vec::with_capacity(values.len() * N);
            for value in values {
                out.extend_from_slice(&bytes(*value));
            }
            out
        }
        match self {
            Self::Bool(values) => flat(values, |value| [u8::from(value)]),
            Self::Uint8(values) => values.clone(),
            Self::Uint16(values) | Self::Fp16(values) => flat(values, u16::to_le_bytes),
            Self::Uint32(values) => flat(values, u32::to_le_bytes),
            Self::Uint64(values) => flat(values, u64::to_le_bytes),
            Self::Int8(values) => flat(values, i8::to_le_bytes),
            Self::Int16(values) => flat(values, i16::to_le_bytes),
            Self::Int32(values) => flat(values, i32::to_le_bytes),
            Self::Int64(values) => flat(values, i64::to_le_bytes),
            Self::Fp32(values) => flat(values, f32::to_le_bytes),
            Self::Fp64(values) => flat(values, f64::to_le_bytes),
            Self::Bytes(values) => {
                let mut out = Vec::new();
                for value in values {
                    out.extend_from_slice(&u32::try_from(value.len()).unwrap_or(u32::MAX).to_le_bytes());
                    out.extend_from_slice(value);
                }
                out
            }
        }
    }

    /// Reads the binary tensor form. The error says what does not fit.
    pub fn from_le_bytes(datatype: Datatype, bytes: &[u8]) -> Result<Self, String> {
        fn flat<T, const N: usize>(bytes: &[u8], value: impl Fn([u8; N]) -> T) -> Result<Vec<T>, String> {
            let (chunks, rest) = bytes.as_chunks::<N>();
            if !rest.is_empty() {
                return Err(format!(
                    "{} bytes are not a multiple of {N}, the size of an element",
                    bytes.len()
                ));
            }
            Ok(chunks.iter().map(|chunk| value(*chunk)).collect())
        }
        Ok(match datatype {
            Datatype::Bool => Self::Bool(bytes.iter().map(|byte| *byte != 0).collect()),
            Datatype::Uint8 => Self::Uint8(bytes.to_vec()),
            Datatype::Uint16 => Self::Uint16(flat(bytes, u16::from_le_bytes)?),
            Datatype::Uint32 => Self::Uint32(flat(bytes, u32::from_le_bytes)?),
            Datatype::Uint64 => Self::Uint64(flat(bytes, u64::from_le_bytes)?),
            Datatype::Int8 => Self::Int8(flat(bytes, i8::from_le_bytes)?),
            Datatype::Int16 => Self::Int16(flat(bytes, i16::from_le_bytes)?),
            Datatype::Int32 => Self::Int32(flat(bytes, i32::from_le_bytes)?),
            Datatype::Int64 => Self::Int64(flat(bytes, i64::from_le_bytes)?),
            Datatype::Fp16 => Self::Fp16(flat(bytes, u16::from_le_bytes)?),
            Datatype::Fp32 => Self::Fp32(flat(bytes, f32::from_le_bytes)?),
            Datatype::Fp64 => Self::Fp64(flat(bytes, f64::from_le_bytes)?),
            Datatype::Bytes => {
                let mut values = Vec::new();
                let mut rest = bytes;
                while let Some((length, after)) = rest.split_first_chunk::<4>() {
                    let length = u32::from_le_bytes(*length) as usize;
                    if after.len() < length {
                        return Err(format!(
                            "element {} claims {length} bytes, but {} are left",
                            values.len(),
                            after.len()
                        ));
                    }
                    values.push(after[..length].to_vec());
                    rest = &after[length..];
                }
                if !rest.is_empty() {
                    return Err(format!("{} stray bytes after the last element", rest.len()));
                }
                Self::Bytes(values)
            }
        })
    }
}

impl Tensor {
    /// A tensor whose element count is checked against its shape.
    pub fn checked(name: String, shape: Vec<usize>, data: Data) -> Result<Self, InferError> {
        let want = shape
            .iter()
            .try_fold(1usize, |product, dimension| product.checked_mul(*dimension));
        if want != Some(data.len()) {
            let needs = want.map_or_else(|| "more than memory holds".to_owned(), |want| want.to_string());
            return Err(InferError::tensor(
                &name,
                "data",
                format_args!(
                    "has {} elements, but shape {} needs {needs}",
                    data.len(),
                    shape_text(&shape)
                ),
            ));
        }
        Ok(Self { name, shape, data })
    }
}

impl Tensor {
    /// Some of its rows (slices along the first dimension).
    #[must_use]
    pub fn rows(&self, start: usize, count: usize) -> Self {
        let step: usize = self.shape.iter().skip(1).product();
        let range = start * step..(start + count) * step;
        let mut shape = self.shape.clone();
        if let Some(first) = shape.first_mut() {
            *first = count;
        }
        Self {
            name: self.name.clone(),
            shape,
            data: self.data.part(range),
        }
    }
}

/// `[2,3]`.
pub fn shape_text(shape: &[usize]) -> String {
    let mut text = String::from("[");
    for (at, dimension) in shape.iter().enumerate() {
        if at > 0 {
            text.push(',');
        }
        text.push_str(&dimension.to_string());
    }
    text.push(']');
    text
}

/// Why a JSON value cannot be an element.
#[derive(Debug, Clone, PartialEq)]
pub enum ElementProblem {
    /// A value of another kind: a text, a truth value, null.
    Kind,
    /// A number that the type cannot hold.
    Range,
    /// A number with a fraction where an integer is wanted.
    Fraction,
}

/// An element type that JSON numbers can be read into.
pub trait Element: Sized {
    /// From a JSON number: its value, and its integer when it is written as one that fits 128 bits.
    fn from_number(value: f64, integer: Option<i128>) -> Result<Self, ElementProblem>;
    /// From `true` or `false`.
    fn from_bool(value: bool) -> Result<Self, ElementProblem>;
    /// From `null`.
    fn from_null() -> Result<Self, ElementProblem> {
        Err(ElementProblem::Kind)
    }
}

impl Element for f32 {
    #[inline]
    fn from_number(value: f64, _: Option<i128>) -> Result<Self, ElementProblem> {
        // By way of f64, as numpy does, so that a value rounds as it would there.
        Ok(value as f32)
    }
    fn from_bool(_: bool) -> Result<Self, ElementProblem> {
        Err(ElementProblem::Kind)
    }
    fn from_null() -> Result<Self, ElementProblem> {
        Ok(f32::NAN)
    }
}

impl Element for f64 {
    #[inline]
    fn from_number(value: f64, _: Option<i128>) -> Result<Self, ElementProblem> {
        Ok(value)
    }
    fn from_bool(_: bool) -> Result<Self, ElementProblem> {
        Err(ElementProblem::Kind)
    }
    fn from_null() -> Result<Self, ElementProblem> {
        Ok(f64::NAN)
    }
}

impl Element for bool {
    fn from_number(value: f64, _: Option<i128>) -> Result<Self, ElementProblem> {
        if value == 0.0 {
            Ok(false)
        } else if value == 1.0 {
            Ok(true)
        } else {
            Err(ElementProblem::Range)
        }
    }
    fn from_bool(value: bool) -> Result<Self, ElementProblem> {
        Ok(value)
    }
}

macro_rules! integer_elements {
    ($($kind:ty),*) => {$(
        impl Element for $kind {
            fn from_number(value: f64, integer: Option<i128>) -> Result<Self, ElementProblem> {
                if let Some(integer) = integer {
                    return <$kind>::try_from(integer).map_err(|_| ElementProblem::Range);
                }
                if value.fract() != 0.0 {
                    return Err(ElementProblem::Fraction);
                }
                // Written as 3.0 or 1e2; i128 holds every such value that any of these types holds.
                if value.abs() > 1e30 {
                    return Err(ElementProblem::Range);
                }
                <$kind>::try_from(value as i128).map_err(|_| ElementProblem::Range)
            }
            fn from_bool(_: bool) -> Result<Self, ElementProblem> {
                Err(ElementProblem::Kind)
            }
        }
    )*};
}
integer_elements!(u8, u16, u32, u64, i8, i16, i32, i64);

/// IEEE 754 half to single, exact.
fn half_to_f32(bits: u16) -> f32 {
    let sign = u32::from(bits >> 15) << 31;
    let exponent = u32::from(bits >> 10) & 0x1f;
    let fraction = u32::from(bits) & 0x3ff;
    match (exponent, fraction) {
        (0, 0) => f32::from_bits(sign),
        (0, _) => {
            let magnitude = fraction as f32 / 16_777_216.0;
            if sign == 0 { magnitude } else { -magnitude }
        }
        (0x1f, _) => f32::from_bits(sign | 0x7f80_0000 | (fraction << 13)),
        _ => f32::from_bits(sign | ((exponent + 112) << 23) | (fraction << 13)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn half_floats_known_values() {
        for (bits, value) in [
            (0x0000u16, 0.0f32),
            (0x3c00, 1.0),
            (0xc000, -2.0),
            (0x7bff, 65504.0),
            (0x0001, 5.960_464_5e-8),
            (0x03ff, 6.097_555e-5),
            (0x7c00, f32::INFINITY),
        ] {
            assert_eq!(half_to_f32(bits), value, "{bits:#06x}");
        }
        assert!(half_to_f32(0x7e00).is_nan());
    }

    #[test]
    fn binary_form_refuses_torn_elements() {
        assert_eq!(
            Data::from_le_bytes(Datatype::Fp32, &[0; 7]).unwrap_err(),
            "7 bytes are not a multiple of 4, the size of an element"
        );
        assert_eq!(
            Data::from_le_bytes(Datatype::Bytes, &[5, 0, 0, 0, b'a']).unwrap_err(),
            "element 0 claims 5 bytes, but 1 are left"
        );
        assert_eq!(
            Data::from_le_bytes(Datatype::Bytes, &[1, 0, 0, 0, b'a', 9]).unwrap_err(),
            "1 stray bytes after the last element"
        );
    }

    #[test]
    fn integers_keep_range_and_refuse_fractions() {
        assert_eq!(u8::from_number(255.0, Some(255)), Ok(255));
        assert_eq!(u8::from_number(256.0, Some(256)), Err(ElementProblem::Range));
        assert_eq!(i8::from_number(1.5, None), Err(ElementProblem::Fraction));
        assert_eq!(i64::from_number(3.0, None), Ok(3));
        assert_eq!(i64::from_number(1e300, None), Err(ElementProblem::Range));
    }

    proptest! {
        #[test]
        fn binary_form_round_trips(floats in proptest::collection::vec(any::<f64>(), 0..20), texts in proptest::collection::vec(any::<Vec<u8>>(), 0..5)) {
            let data = Data::Bytes(texts);
            prop_assert_eq!(Data::from_le_bytes(Datatype::Bytes, &data.to_le_bytes()).unwrap(), data);
            let back = Data::from_le_bytes(Datatype::Fp64, &Data::Fp64(floats.clone()).to_le_bytes()).unwrap();
            let Data::Fp64(back) = back else { panic!("wrong type") };
            prop_assert!(back.iter().zip(&floats).all(|(a, b)| a.to_bits() == b.to_bits()));
        }
    }
}
