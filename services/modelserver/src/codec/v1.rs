//! V1: `{"instances": [...]}` in, `{"predictions": [...]}` out.

use super::{Refusal, array_text};
use crate::json::{Nested, Scanner, read_array, write_data, write_string};
use crate::protocol::{Data, Datatype, InferError, Instances, Tensor};

/// How the model wants its instances.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wanted {
    /// As numbers of this type.
    Numbers(Datatype),
    /// As numpy would read them: whole numbers as INT64, others as FP64, and anything else as it is written.
    Any,
}

/// Reads `instances` (or `inputs`, which means the same). `columns` sizes the first allocation.
pub fn read_v1(body: &[u8], wanted: Wanted, input: &str, columns: usize) -> Result<Instances, InferError> {
    let mut scanner = Scanner::new(body);
    let mut found: Option<(&'static str, usize)> = None;
    let mut numbers = None;
    let read = scanner.object::<Refusal>(|scanner, key| {
        let field = match key {
            "instances" => "instances",
            "inputs" => "inputs",
            _ => return Ok(scanner.skip()?),
        };
        if let Some((other, _)) = found {
            return Err(
                InferError::field(field, format_args!("there is {other:?} already, send only one")).into(),
            );
        }
        scanner.peek();
        found = Some((field, scanner.position()));
        numbers = Some(read_instances(scanner, wanted, field, input, columns)?);
        Ok(())
    });
    read.and_then(|()| Ok(scanner.end()?))
        .map_err(|refusal| refusal.into_error(body))?;
    numbers.ok_or_else(|| InferError::field("instances", "is missing; send {\"instances\": [[...], ...]}"))
}

fn read_instances(
    scanner: &mut Scanner<'_>,
    wanted: Wanted,
    field: &str,
    input: &str,
    columns: usize,
) -> Result<Instances, Refusal> {
    let start = scanner.position();
    if scanner.peek() != Some(b'[') {
        scanner.skip()?;
        return Err(InferError::field(field, "expected a list of instances").into());
    }
    macro_rules! read {
        ($kind:ty, $variant:ident) => {
            match read_array::<$kind>(scanner, columns) {
                Ok(nested) => Ok(tensor(input, nested.dims, Data::$variant(nested.values))),
                Err(error) => {
                    let text = array_text(error, "a number")?;
                    return Err(InferError::field(field, text).into());
                }
            }
        };
    }
    match wanted {
        Wanted::Numbers(Datatype::Fp64) => read!(f64, Fp64),
        Wanted::Numbers(Datatype::Int64) => read!(i64, Int64),
        Wanted::Numbers(Datatype::Int32) => read!(i32, Int32),
        Wanted::Numbers(Datatype::Uint8) => read!(u8, Uint8),
        Wanted::Numbers(Datatype::Bool) => read!(bool, Bool),
        Wanted::Numbers(_) => read!(f32, Fp32),
        Wanted::Any => match read_array::<f64>(scanner, columns) {
            // Beyond 2^53 a double no longer holds every whole number.
            Ok(Nested {
                dims,
                values,
                integers,
            }) if integers && values.iter().all(|value| value.abs() < 9e15) => {
                let values = values.into_iter().map(|value| value as i64).collect();
                Ok(tensor(input, dims, Data::Int64(values)))
            }
            Ok(nested) => Ok(tensor(input, nested.dims, Data::Fp64(nested.values))),
            Err(error) => {
                // Not numbers, but still to be JSON.
                array_text(error, "a number")?;
                *scanner = Scanner::at(scanner.text(), start);
                scanner.skip()?;
                Ok(Instances::Json(
                    scanner.text()[start..scanner.position()].to_vec(),
                ))
            }
        },
    }
}

fn tensor(name: &str, shape: Vec<usize>, data: Data) -> Instances {
    Instances::Numeric(Tensor {
        name: name.to_owned(),
        shape,
        data,
    })
}

/// Writes `{"predictions": ...}` nested as the shape says.
pub fn write_v1(output: &Tensor) -> Vec<u8> {
    let mut out = Vec::with_capacity(24 + output.data.len() * 20);
    out.extend_from_slice(b"{\"predictions\":");
    nested(&mut out, &output.data, &output.shape, 0..output.data.len());
    out.push(b'}');
    out
}

/// Writes `{"predictions": [{"a": 1, "b": 2}, ...]}`: one object per row, one member per output.
pub fn write_records(outputs: &[Tensor]) -> Vec<u8> {
    let rows = outputs
        .iter()
        .map(|output| output.shape.first().copied().unwrap_or(0))
        .min()
        .unwrap_or(0);
    let mut out = b"{\"predictions\":[".to_vec();
    for row in 0..rows {
        out.extend_from_slice(if row > 0 { b",{" } else { b"{" });
        for (at, output) in outputs.iter().enumerate() {
            if at > 0 {
                out.push(b',');
            }
            write_string(&mut out, &output.name);
            out.push(b':');
            let inner = output.shape.get(1..).unwrap_or(&[]);
            let step = inner.iter().product::<usize>();
            nested(&mut out, &output.data, inner, row * step..(row + 1) * step);
        }
        out.push(b'}');
    }
    out.extend_from_slice(b"]}");
    out
}

fn nested(out: &mut Vec<u8>, data: &Data, shape: &[usize], range: std::ops::Range<usize>) {
    match shape {
        [] => write_data(out, data, range),
        [_] => {
            out.push(b'[');
            write_data(out, data, range);
            out.push(b']');
        }
        [length, inner @ ..] => {
            let step = inner.iter().product::<usize>();
            out.push(b'[');
            for at in 0..*length {
                if at > 0 {
                    out.push(b',');
                }
                let start = range.start + at * step;
                nested(out, data, inner, start..start + step);
            }
            out.push(b']');
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(body: &str, wanted: Wanted) -> Result<Instances, String> {
        read_v1(body.as_bytes(), wanted, "x", 4).map_err(|error| error.text)
    }

    #[test]
    fn numbers_are_typed_as_wanted() {
        let body = r#"{"signature_name":"s","instances":[[1,2],[3,4]]}"#;
        let shaped = |data| {
            Ok(Instances::Numeric(Tensor {
                name: "x".into(),
                shape: vec![2, 2],
                data,
            }))
        };
        assert_eq!(
            read(body, Wanted::Numbers(Datatype::Fp32)),
            shaped(Data::Fp32(vec![1.0, 2.0, 3.0, 4.0]))
        );
        assert_eq!(read(body, Wanted::Any), shaped(Data::Int64(vec![1, 2, 3, 4])));
        assert_eq!(
            read(r#"{"inputs":[[1.5,2],[3,4]]}"#, Wanted::Any),
            shaped(Data::Fp64(vec![1.5, 2.0, 3.0, 4.0]))
        );
    }

    #[test]
    fn records_stay_json_for_those_who_want_them() {
        let records = r#"[{"a": 1}, {"a": "x"}]"#;
        let body = format!(r#"{{"instances": {records}}}"#);
        assert_eq!(
            read(&body, Wanted::Any),
            Ok(Instances::Json(records.as_bytes().to_vec()))
        );
        assert_eq!(
            read(&body, Wanted::Numbers(Datatype::Fp32)).unwrap_err(),
            "field \"instances\": element 0 is an object, expected a number"
        );
    }

    #[test]
    fn what_is_missing_or_torn_is_named() {
        for (body, text) in [
            (
                "{}",
                "field \"instances\": is missing; send {\"instances\": [[...], ...]}",
            ),
            (
                r#"{"instances": 3}"#,
                "field \"instances\": expected a list of instances",
            ),
            (
                r#"{"instances": [[1],[1,2]]}"#,
                "field \"instances\": lists are irregular: at [1] there is 2 where others have 1 elements",
            ),
            (
                r#"{"instances": [], "inputs": []}"#,
                "field \"inputs\": there is \"instances\" already, send only one",
            ),
            (
                r#"{"instances": [[1"#,
                "request body is not valid JSON: unexpected end of input, expected `,` or `]` at line 1 column 18 (byte 17)",
            ),
            (
                "",
                "request body is not valid JSON: unexpected end of input, expected an object at line 1 column 1 (byte 0)",
            ),
        ] {
            assert_eq!(
                read(body, Wanted::Numbers(Datatype::Fp32)).unwrap_err(),
                text,
                "{body}"
            );
        }
    }

    #[test]
    fn predictions_nest_as_the_shape_says() {
        let tensor = |shape: &[usize], data| Tensor {
            name: "y".into(),
            shape: shape.to_vec(),
            data,
        };
        let text = |tensor: &Tensor| String::from_utf8(write_v1(tensor)).unwrap();
        assert_eq!(
            text(&tensor(&[2, 2], Data::Fp32(vec![0.5, 0.25, 1.0, 0.0]))),
            r#"{"predictions":[[0.5,0.25],[1.0,0.0]]}"#
        );
        assert_eq!(
            text(&tensor(&[2], Data::Int64(vec![1, 2]))),
            r#"{"predictions":[1,2]}"#
        );
        assert_eq!(
            text(&tensor(&[0, 3], Data::Fp32(vec![]))),
            r#"{"predictions":[]}"#
        );
    }
}
