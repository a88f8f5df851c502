//! V2, the Open Inference Protocol over HTTP, with its binary tensor extension.

use super::{Refusal, array_text};
use crate::json::{
    ArrayError, Nested, Scanner, read_array, read_bytes_array, write_data, write_shape, write_string,
};
use crate::protocol::{
    Data, Datatype, InferError, InferRequest, ModelSpec, RequestedOutput, Tensor, TensorSpec, shape_text,
};

/// One input as far as it has been read; its members may come in any order.
#[derive(Default)]
struct Input {
    name: Option<String>,
    shape: Option<Vec<usize>>,
    datatype: Option<Datatype>,
    binary_size: Option<usize>,
    content_type: Option<String>,
    data: Pending,
}

#[derive(Default)]
enum Pending {
    #[default]
    Missing,
    /// Data that came before its datatype: where it starts.
    At(usize),
    Read(Nested<()>, Data),
}

/// Reads a request. `json_length` is the header `Inference-Header-Content-Length`; bytes beyond it are tensors.
pub fn read_v2(body: &[u8], json_length: Option<usize>) -> Result<InferRequest, InferError> {
    let length = json_length.unwrap_or(body.len());
    if length > body.len() {
        return Err(InferError::bad(format!(
            "header \"Inference-Header-Content-Length\": is {length}, but the body has {} bytes",
            body.len()
        )));
    }
    let (json, mut blobs) = body.split_at(length);
    let mut request = InferRequest::default();
    let mut has_inputs = false;
    let mut scanner = Scanner::new(json);
    let read = scanner.object::<Refusal>(|scanner, key| {
        match key {
            "id" => request.id = identifier(scanner)?,
            "parameters" => parameters(scanner, |scanner, key| match key {
                "binary_data_output" => {
                    request.binary_output = scanner.boolean()?;
                    Ok(())
                }
                "content_type" => optional_text(scanner, &mut request.content_type),
                _ => Ok(scanner.skip()?),
            })?,
            "inputs" => {
                if scanner.peek() != Some(b'[') {
                    scanner.skip()?;
                    return Err(InferError::field("inputs", "expected a list of tensors").into());
                }
                has_inputs = true;
                request.inputs.clear();
                let mut index = 0;
                scanner.array::<Refusal>(|scanner| {
                    let (tensor, content_type) = input(scanner, index, &mut blobs)?;
                    index += 1;
                    request.content_type = request.content_type.take().or(content_type);
                    request.inputs.push(tensor);
                    Ok(())
                })?;
            }
            "outputs" => {
                if scanner.peek() == Some(b'n') {
                    return Ok(scanner.literal("null")?);
                }
                scanner.array::<Refusal>(|scanner| {
                    request.outputs.push(requested_output(scanner)?);
                    Ok(())
                })?;
            }
            _ => scanner.skip()?,
        }
        Ok(())
    });
    read.and_then(|()| Ok(scanner.end()?))
        .map_err(|refusal| refusal.into_error(json))?;
    if !has_inputs {
        return Err(InferError::field(
            "inputs",
            "is missing; send {\"inputs\": [{\"name\", \"shape\", \"datatype\", \"data\"}]}",
        ));
    }
    if request.inputs.is_empty() {
        return Err(InferError::field("inputs", "is empty; send at least one tensor"));
    }
    if !blobs.is_empty() {
        return Err(InferError::bad(format!(
            "{} bytes follow the last binary tensor",
            blobs.len()
        )));
    }
    Ok(request)
}

/// Ids are texts; a number is taken by what it says.
fn identifier(scanner: &mut Scanner<'_>) -> Result<Option<String>, Refusal> {
    Ok(match scanner.peek() {
        Some(b'"') => Some(scanner.string()?.into_owned()),
        Some(b'n') => {
            scanner.literal("null")?;
            None
        }
        _ => {
            scanner.skip()?;
            return Err(InferError::field("id", "expected a text").into());
        }
    })
}

fn parameters(
    scanner: &mut Scanner<'_>,
    member: impl FnMut(&mut Scanner<'_>, &str) -> Result<(), Refusal>,
) -> Result<(), Refusal> {
    if scanner.peek() == Some(b'n') {
        return Ok(scanner.literal("null")?);
    }
    scanner.object(member)
}

fn optional_text(scanner: &mut Scanner<'_>, place: &mut Option<String>) -> Result<(), Refusal> {
    if scanner.peek() == Some(b'"') {
        *place = Some(scanner.string()?.into_owned());
    } else {
        scanner.skip()?;
    }
    Ok(())
}

fn input(
    scanner: &mut Scanner<'_>,
    index: usize,
    blobs: &mut &[u8],
) -> Result<(Tensor, Option<String>), Refusal> {
    if scanner.peek() != Some(b'{') {
        scanner.skip()?;
        return Err(InferError::field(&format!("inputs[{index}]"), "expected an object").into());
    }
    let mut input = Input::default();
    scanner.object::<Refusal>(|scanner, key| member(scanner, &mut input, index, key))?;
    let place = format!("inputs[{index}]");
    let Some(name) = input.name.take() else {
        return Err(InferError::field(&format!("{place}.name"), "is missing").into());
    };
    let Some(shape) = input.shape.take() else {
        return Err(InferError::tensor(&name, "shape", "is missing").into());
    };
    let Some(datatype) = input.datatype else {
        return Err(InferError::tensor(&name, "datatype", "is missing").into());
    };
    let content_type = input.content_type.take();
    if let Some(size) = input.binary_size {
        if !matches!(input.data, Pending::Missing) {
            return Err(InferError::tensor(&name, "data", "is given twice, as JSON and as binary").into());
        }
        let Some((blob, rest)) = blobs.split_at_checked(size) else {
            let text = format!(
                "binary_data_size is {size}, but {} bytes are left in the body",
                blobs.len()
            );
            return Err(InferError::tensor(&name, "parameters", text).into());
        };
        *blobs = rest;
        let data =
            Data::from_le_bytes(datatype, blob).map_err(|text| InferError::tensor(&name, "data", text))?;
        return Ok((Tensor::checked(name, shape, data)?, content_type));
    }
    let (nested, data) = match input.data {
        Pending::Missing => return Err(InferError::tensor(&name, "data", "is missing").into()),
        Pending::Read(nested, data) => (nested, data),
        Pending::At(start) => read_data(&mut Scanner::at(scanner.text(), start), datatype, &name, &shape)?,
    };
    if nested.dims.len() != 1 && nested.dims != shape && !data.is_empty() {
        let text = format!(
            "is nested as {}, but shape is {}",
            shape_text(&nested.dims),
            shape_text(&shape)
        );
        return Err(InferError::tensor(&name, "data", text).into());
    }
    Ok((Tensor::checked(name, shape, data)?, content_type))
}

fn member(scanner: &mut Scanner<'_>, input: &mut Input, index: usize, key: &str) -> Result<(), Refusal> {
    let place = |input: &Input| input.name.clone().unwrap_or_else(|| format!("inputs[{index}]"));
    match key {
        "name" => {
            if scanner.peek() != Some(b'"') {
                scanner.skip()?;
                return Err(InferError::field(&format!("inputs[{index}].name"), "expected a text").into());
            }
            input.name = Some(scanner.string()?.into_owned());
        }
        "shape" => input.shape = Some(shape(scanner, || place(input))?),
        "datatype" => {
            if scanner.peek() != Some(b'"') {
                scanner.skip()?;
                return Err(InferError::tensor(
                    &place(input),
                    "datatype",
                    "expected a text such as \"FP32\"",
                )
                .into());
            }
            let name = scanner.string()?;
            let Some(datatype) = Datatype::from_name(name.as_bytes()) else {
                let text = format!("{name:?} is not one of {}", crate::protocol::DATATYPE_NAMES);
                return Err(InferError::tensor(&place(input), "datatype", text).into());
            };
            input.datatype = Some(datatype);
        }
        "parameters" => parameters(scanner, |scanner, key| match key {
            "binary_data_size" => {
                let size = scanner
                    .number()?
                    .integer
                    .and_then(|size| usize::try_from(size).ok());
                let size = size.ok_or_else(|| {
                    InferError::tensor(
                        &place(input),
                        "parameters",
                        "binary_data_size is not a number of bytes",
                    )
                })?;
                input.binary_size = Some(size);
                Ok(())
            }
            "content_type" => optional_text(scanner, &mut input.content_type),
            _ => Ok(scanner.skip()?),
        })?,
        "data" => {
            scanner.peek();
            match input.datatype {
                Some(datatype) => {
                    let (nested, data) = read_data(
                        scanner,
                        datatype,
                        &place(input),
                        input.shape.as_deref().unwrap_or(&[]),
                    )?;
                    input.data = Pending::Read(nested, data);
                }
                None => {
                    input.data = Pending::At(scanner.position());
                    scanner.skip()?;
                }
            }
        }
        _ => scanner.skip()?,
    }
    Ok(())
}

fn shape(scanner: &mut Scanner<'_>, place: impl Fn() -> String) -> Result<Vec<usize>, Refusal> {
    if scanner.peek() != Some(b'[') {
        scanner.skip()?;
        return Err(InferError::tensor(&place(), "shape", "expected a list of lengths").into());
    }
    let mut shape = Vec::with_capacity(4);
    scanner.array::<Refusal>(|scanner| {
        scanner.peek();
        let start = scanner.position();
        let length = match scanner.peek() {
            Some(b'-' | b'0'..=b'9') => scanner
                .number()?
                .integer
                .and_then(|length| usize::try_from(length).ok()),
            _ => {
                scanner.skip()?;
                None
            }
        };
        let Some(length) = length else {
            let found = String::from_utf8_lossy(&scanner.text()[start..scanner.position()]).into_owned();
            let text = format!(
                "element {} is {found}, expected a whole number of 0 or more",
                shape.len()
            );
            return Err(InferError::tensor(&place(), "shape", text).into());
        };
        shape.push(length);
        Ok(())
    })?;
    Ok(shape)
}

fn read_data(
    scanner: &mut Scanner<'_>,
    datatype: Datatype,
    name: &str,
    shape: &[usize],
) -> Result<(Nested<()>, Data), Refusal> {
    // What the shape promises, but no more than the text could hold at two bytes an element.
    let promised = shape
        .iter()
        .try_fold(1usize, |product, length| product.checked_mul(*length))
        .unwrap_or(0);
    let capacity = promised.min(scanner.text().len() / 2);
    macro_rules! read {
        ($kind:ty, $variant:ident) => {
            read_array::<$kind>(scanner, capacity).map(|nested| {
                let Nested {
                    dims,
                    values,
                    integers,
                } = nested;
                (
                    Nested {
                        dims,
                        values: Vec::new(),
                        integers,
                    },
                    Data::$variant(values),
                )
            })
        };
    }
    let read: Result<_, ArrayError> = match datatype {
        Datatype::Bool => read!(bool, Bool),
        Datatype::Uint8 => read!(u8, Uint8),
        Datatype::Uint16 => read!(u16, Uint16),
        Datatype::Uint32 => read!(u32, Uint32),
        Datatype::Uint64 => read!(u64, Uint64),
        Datatype::Int8 => read!(i8, Int8),
        Datatype::Int16 => read!(i16, Int16),
        Datatype::Int32 => read!(i32, Int32),
        Datatype::Int64 => read!(i64, Int64),
        Datatype::Fp32 => read!(f32, Fp32),
        Datatype::Fp64 => read!(f64, Fp64),
        Datatype::Fp16 => {
            scanner.skip()?;
            let text = "FP16 cannot be sent as JSON; send FP32, or use the binary tensor extension";
            return Err(InferError::tensor(name, "datatype", text).into());
        }
        Datatype::Bytes => read_bytes_array(scanner).map(|nested| {
            let Nested {
                dims,
                values,
                integers,
            } = nested;
            (
                Nested {
                    dims,
                    values: Vec::new(),
                    integers,
                },
                Data::Bytes(values),
            )
        }),
    };
    match read {
        Ok(read) => Ok(read),
        Err(error) => {
            let expected = if datatype == Datatype::Bytes {
                "a text (datatype is BYTES)"
            } else {
                datatype.name()
            };
            let text = array_text(error, expected)?;
            Err(InferError::tensor(name, "data", text).into())
        }
    }
}

fn requested_output(scanner: &mut Scanner<'_>) -> Result<RequestedOutput, Refusal> {
    let mut name = None;
    let mut binary = None;
    if scanner.peek() != Some(b'{') {
        scanner.skip()?;
        return Err(InferError::field("outputs", "expected objects with a name").into());
    }
    scanner.object::<Refusal>(|scanner, key| match key {
        "name" => optional_text(scanner, &mut name),
        "parameters" => parameters(scanner, |scanner, key| {
            if key == "binary_data" {
                binary = Some(scanner.boolean()?);
                return Ok(());
            }
            Ok(scanner.skip()?)
        }),
        _ => Ok(scanner.skip()?),
    })?;
    let name = name.ok_or_else(|| InferError::field("outputs", "an output has no name"))?;
    Ok(RequestedOutput { name, binary })
}

/// A response body, and the length of its JSON when binary tensors follow.
#[derive(Debug, PartialEq)]
pub struct Encoded {
    /// The whole body.
    pub body: Vec<u8>,
    /// Bytes of JSON before the first binary tensor.
    pub json_length: Option<usize>,
}

/// The error for an output that the model does not have.
pub fn unknown_output(name: &str, outputs: &[Tensor]) -> InferError {
    let known: Vec<String> = outputs
        .iter()
        .map(|output| format!("{:?}", output.name))
        .collect();
    let text = format!(
        "{name:?} is not an output of this model, which has {}",
        known.join(", ")
    );
    InferError::field("outputs", text)
}

/// Writes the outputs that the request asks for, in its order.
pub fn write_v2(model: &str, request: &InferRequest, outputs: &[Tensor]) -> Result<Encoded, InferError> {
    let mut chosen: Vec<(&Tensor, bool)> = Vec::with_capacity(outputs.len());
    if request.outputs.is_empty() {
        chosen.extend(outputs.iter().map(|output| (output, request.binary_output)));
    }
    for wanted in &request.outputs {
        let Some(output) = outputs.iter().find(|output| output.name == wanted.name) else {
            return Err(unknown_output(&wanted.name, outputs));
        };
        chosen.push((output, wanted.binary.unwrap_or(request.binary_output)));
    }
    let elements: usize = chosen.iter().map(|(output, _)| output.data.len()).sum();
    let mut out = Vec::with_capacity(160 + model.len() + elements * 20);
    let mut blobs = Vec::new();
    let mut any_binary = false;
    out.extend_from_slice(b"{\"model_name\":");
    write_string(&mut out, model);
    out.extend_from_slice(b",\"model_version\":\"1\"");
    if let Some(id) = &request.id {
        out.extend_from_slice(b",\"id\":");
        write_string(&mut out, id);
    }
    out.extend_from_slice(b",\"outputs\":[");
    for (at, (output, binary)) in chosen.iter().enumerate() {
        if at > 0 {
            out.push(b',');
        }
        out.extend_from_slice(b"{\"name\":");
        write_string(&mut out, &output.name);
        out.extend_from_slice(b",\"shape\":");
        write_shape(&mut out, &output.shape);
        out.extend_from_slice(b",\"datatype\":\"");
        out.extend_from_slice(output.data.datatype().name().as_bytes());
        // Half floats have no JSON form, so they go as bytes whatever was asked.
        if *binary || output.data.datatype() == Datatype::Fp16 {
            any_binary = true;
            let blob = output.data.to_le_bytes();
            out.extend_from_slice(
                format!("\",\"parameters\":{{\"binary_data_size\":{}}}}}", blob.len()).as_bytes(),
            );
            blobs.extend_from_slice(&blob);
        } else {
            out.extend_from_slice(b"\",\"data\":[");
            write_data(&mut out, &output.data, 0..output.data.len());
            out.extend_from_slice(b"]}");
        }
    }
    out.extend_from_slice(b"]}");
    let json_length = any_binary.then_some(out.len());
    out.extend_from_slice(&blobs);
    Ok(Encoded {
        body: out,
        json_length,
    })
}

/// Writes a model's description.
pub fn write_model(model: &str, spec: &ModelSpec) -> Vec<u8> {
    fn tensors(out: &mut Vec<u8>, specs: &[TensorSpec]) {
        for (at, spec) in specs.iter().enumerate() {
            if at > 0 {
                out.push(b',');
            }
            out.extend_from_slice(b"{\"name\":");
            write_string(out, &spec.name);
            out.extend_from_slice(format!(",\"datatype\":\"{}\",\"shape\":[", spec.datatype).as_bytes());
            let dimensions: Vec<String> = spec.shape.iter().map(i64::to_string).collect();
            out.extend_from_slice(dimensions.join(",").as_bytes());
            out.extend_from_slice(b"]}");
        }
    }
    let mut out = b"{\"name\":".to_vec();
    write_string(&mut out, model);
    out.extend_from_slice(b",\"versions\":[\"1\"],\"platform\":");
    write_string(&mut out, spec.platform);
    out.extend_from_slice(b",\"inputs\":[");
    tensors(&mut out, &spec.inputs);
    out.extend_from_slice(b"],\"outputs\":[");
    tensors(&mut out, &spec.outputs);
    out.extend_from_slice(b"]}");
    out
}

#[cfg(test)]
#[path = "v2_tests.rs"]
mod tests;
