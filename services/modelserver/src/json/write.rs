//! JSON out, by hand.

use crate::protocol::Data;

/// A text with quotes and escapes.
pub fn write_string(out: &mut Vec<u8>, text: &str) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    out.push(b'"');
    for byte in text.bytes() {
        match byte {
            b'"' => out.extend_from_slice(b"\\\""),
            b'\\' => out.extend_from_slice(b"\\\\"),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            0..0x20 => {
                out.extend_from_slice(b"\\u00");
                out.push(HEX[usize::from(byte >> 4)]);
                out.push(HEX[usize::from(byte & 15)]);
            }
            _ => out.push(byte),
        }
    }
    out.push(b'"');
}

/// `[2,3]`.
pub fn write_shape(out: &mut Vec<u8>, shape: &[usize]) {
    let mut buffer = itoa::Buffer::new();
    out.push(b'[');
    for (at, dimension) in shape.iter().enumerate() {
        if at > 0 {
            out.push(b',');
        }
        out.extend_from_slice(buffer.format(*dimension).as_bytes());
    }
    out.push(b']');
}

/// A double; not-a-number is null (JSON has none), an infinity a number beyond every double.
fn write_f64(out: &mut Vec<u8>, value: f64) {
    if value.is_finite() {
        let mut buffer = zmij::Buffer::new();
        out.extend_from_slice(buffer.format_finite(value).as_bytes());
    } else if value.is_nan() {
        out.extend_from_slice(b"null");
    } else {
        out.extend_from_slice(if value > 0.0 { b"1e999" } else { b"-1e999" });
    }
}

fn list<T: Copy>(out: &mut Vec<u8>, values: &[T], mut write: impl FnMut(&mut Vec<u8>, T)) {
    for (at, value) in values.iter().enumerate() {
        if at > 0 {
            out.push(b',');
        }
        write(out, *value);
    }
}

macro_rules! integers {
    ($out:expr, $values:expr) => {{
        let mut buffer = itoa::Buffer::new();
        list($out, $values, |out, value| {
            out.extend_from_slice(buffer.format(value).as_bytes())
        });
    }};
}

/// Elements `from..to` separated by commas, without brackets. Single floats are written as the double of the same value
/// (as Python's `float(numpy.float32)` prints), so that they equal what the engine's own Python API gives.
pub fn write_data(out: &mut Vec<u8>, data: &Data, range: std::ops::Range<usize>) {
    match data {
        Data::Fp32(values) => list(out, &values[range], |out, value| write_f64(out, f64::from(value))),
        Data::Fp64(values) => list(out, &values[range], write_f64),
        Data::Int64(values) => integers!(out, &values[range]),
        Data::Int32(values) => integers!(out, &values[range]),
        Data::Int16(values) => integers!(out, &values[range]),
        Data::Int8(values) => integers!(out, &values[range]),
        Data::Uint64(values) => integers!(out, &values[range]),
        Data::Uint32(values) => integers!(out, &values[range]),
        Data::Uint16(values) | Data::Fp16(values) => integers!(out, &values[range]),
        Data::Uint8(values) => integers!(out, &values[range]),
        Data::Bool(values) => {
            list(out, &values[range], |out, value| {
                out.extend_from_slice(if value { b"true" } else { b"false" });
            });
        }
        Data::Bytes(values) => {
            for (at, value) in values[range].iter().enumerate() {
                if at > 0 {
                    out.push(b',');
                }
                write_string(out, &String::from_utf8_lossy(value));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(data: &Data) -> String {
        let mut out = Vec::new();
        write_data(&mut out, data, 0..data.len());
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn single_floats_are_written_as_python_writes_them() {
        assert_eq!(
            written(&Data::Fp32(vec![0.1, 1.0, f32::NAN, f32::INFINITY])),
            "0.10000000149011612,1.0,null,1e999"
        );
        assert_eq!(written(&Data::Fp64(vec![0.1, -3.0])), "0.1,-3.0");
        assert_eq!(written(&Data::Int8(vec![-1, 2])), "-1,2");
        assert_eq!(written(&Data::Bytes(vec![b"a\"\x01".to_vec()])), r#""a\"\u0001""#);
    }
}
