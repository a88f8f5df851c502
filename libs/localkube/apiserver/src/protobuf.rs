//! Kubernetes' protobuf encoding of request bodies, which kubectl and other Go clients send. Answers are JSON, which they accept.

use std::collections::HashMap;
use std::io::Read as _;
use std::sync::OnceLock;

use base64::Engine as _;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::definitions::Definitions;

const MAGIC: &[u8] = b"k8s\0";
pub const MEDIA_TYPE: &str = "application/vnd.kubernetes.protobuf";

/// JSON name (empty when inlined), type, flags: `r` repeated, `m` map, `k` zero values are kept.
#[derive(Debug, Deserialize)]
struct Field(String, String, String);

type Message = HashMap<u32, Field>;

/// The layout of messages; read when first needed.
#[derive(Default)]
pub struct Layouts {
    messages: OnceLock<HashMap<String, Message>>,
}

enum Wire<'a> {
    Number(u64),
    Bytes(&'a [u8]),
    Fixed(u64),
}

fn varint(data: &mut &[u8]) -> Option<u64> {
    let mut out = 0u64;
    for shift in (0..64).step_by(7) {
        let (first, rest) = data.split_first()?;
        *data = rest;
        out |= u64::from(first & 0x7f) << shift;
        if first & 0x80 == 0 {
            return Some(out);
        }
    }
    None
}

fn next_field<'a>(data: &mut &'a [u8]) -> Option<(u32, Wire<'a>)> {
    let tag = varint(data)?;
    let number = u32::try_from(tag >> 3).ok()?;
    let take = |data: &mut &'a [u8], n: usize| -> Option<&'a [u8]> {
        let (head, rest) = data.split_at_checked(n)?;
        *data = rest;
        Some(head)
    };
    let value = match tag & 7 {
        0 => Wire::Number(varint(data)?),
        1 => Wire::Fixed(u64::from_le_bytes(take(data, 8)?.try_into().ok()?)),
        2 => {
            let n = usize::try_from(varint(data)?).ok()?;
            Wire::Bytes(take(data, n)?)
        }
        5 => Wire::Fixed(u64::from(u32::from_le_bytes(take(data, 4)?.try_into().ok()?))),
        _ => return None,
    };
    Some((number, value))
}

/// Fields 1 and 2 of small messages.
fn text_field(mut data: &[u8], wanted: u32) -> Option<String> {
    let mut found = None;
    while !data.is_empty() {
        if let (number, Wire::Bytes(bytes)) = next_field(&mut data)?
            && number == wanted
        {
            found = Some(String::from_utf8_lossy(bytes).into_owned());
        }
    }
    found
}

impl Layouts {
    fn get(&self, name: &str) -> Option<&Message> {
        self.messages
            .get_or_init(|| {
                let data: &[u8] = include_bytes!("../data/proto.json.gz");
                let mut text = Vec::new();
                let _ = flate2::read::GzDecoder::new(data).read_to_end(&mut text);
                serde_json::from_slice(&text).unwrap_or_default()
            })
            .get(name)
    }

    /// The JSON of a body; `None` when it is not the encoding of a kind that is known.
    pub fn decode(&self, definitions: &Definitions, body: &[u8]) -> Option<Value> {
        let mut envelope = body.strip_prefix(MAGIC)?;
        let (mut api_version, mut kind, mut raw): (String, String, &[u8]) =
            (String::new(), String::new(), &[]);
        while !envelope.is_empty() {
            match next_field(&mut envelope)? {
                (1, Wire::Bytes(meta)) => {
                    api_version = text_field(meta, 1).unwrap_or_default();
                    kind = text_field(meta, 2).unwrap_or_default();
                }
                (2, Wire::Bytes(bytes)) => raw = bytes,
                _ => {}
            }
        }
        let (group, version) = crate::registry::split_api_version(&api_version);
        let name = match kind.as_str() {
            "DeleteOptions" => "k8s.io.apimachinery.pkg.apis.meta.v1.DeleteOptions".to_owned(),
            _ => {
                let openapi = definitions.of_kind(group, version, &kind)?;
                format!(
                    "k8s.io.{}",
                    openapi
                        .strip_prefix("io.k8s.")?
                        .replace("apiextensions-apiserver", "apiextensions_apiserver")
                )
            }
        };
        let mut value = self.message(&name, raw)?;
        value["apiVersion"] = api_version.into();
        value["kind"] = kind.into();
        Some(value)
    }

    fn message(&self, name: &str, data: &[u8]) -> Option<Value> {
        if let Some(special) = self.special(name, data) {
            return special;
        }
        let layout = self.get(name)?;
        let mut out = Map::new();
        let mut data = data;
        while !data.is_empty() {
            let (number, wire) = next_field(&mut data)?;
            let Some(Field(json_name, kind, flags)) = layout.get(&number) else {
                continue;
            };
            if flags.contains('m') {
                let Wire::Bytes(mut entry) = wire else { return None };
                let (mut key, mut value) = (String::new(), Value::Null);
                while !entry.is_empty() {
                    match next_field(&mut entry)? {
                        (1, Wire::Bytes(b)) => key = String::from_utf8_lossy(b).into_owned(),
                        (2, wire) => value = self.value(kind, &wire)?,
                        _ => {}
                    }
                }
                if value.is_null() && kind == "string" {
                    value = "".into();
                }
                let map = out.entry(json_name.clone()).or_insert_with(|| json!({}));
                map[key] = value;
                continue;
            }
            let value = self.value(kind, &wire)?;
            if flags.contains('r') {
                let list = out.entry(json_name.clone()).or_insert_with(|| json!([]));
                list.as_array_mut()?.push(value);
            } else if json_name.is_empty() {
                if let Value::Object(inner) = value {
                    out.extend(inner);
                }
            } else {
                let zero = value.is_null() || value == "" || value == 0 || value == false;
                if !zero || (flags.contains('k') && !value.is_null()) {
                    out.insert(json_name.clone(), value);
                }
            }
        }
        Some(Value::Object(out))
    }

    fn value(&self, kind: &str, wire: &Wire<'_>) -> Option<Value> {
        Some(match (kind, wire) {
            ("string", Wire::Bytes(b)) => String::from_utf8_lossy(b).into_owned().into(),
            ("bytes", Wire::Bytes(b)) => base64::engine::general_purpose::STANDARD.encode(b).into(),
            ("bool", Wire::Number(n)) => (*n != 0).into(),
            // Negative numbers are sign-extended to 64 bits.
            ("double", Wire::Fixed(n)) => f64::from_bits(*n).into(),
            (_, Wire::Number(n) | Wire::Fixed(n)) => (*n as i64).into(),
            (message, Wire::Bytes(b)) => self.message(message, b)?,
        })
    }

    /// Messages whose JSON is not an object of their fields.
    fn special(&self, name: &str, data: &[u8]) -> Option<Option<Value>> {
        let short = name.rsplit('.').next().unwrap_or_default();
        let raw = || -> Option<Value> {
            let mut data = data;
            let mut found = Value::Null;
            while !data.is_empty() {
                if let (1, Wire::Bytes(b)) = next_field(&mut data)? {
                    found = serde_json::from_slice(b).ok()?;
                }
            }
            Some(found)
        };
        Some(match short {
            "Quantity" => text_field(data, 1).or(Some(String::new())).map(Value::from),
            "FieldsV1" | "RawExtension" | "JSON" => raw(),
            "Time" | "MicroTime" => time(data, short == "MicroTime"),
            "IntOrString" => int_or_string(data),
            "ExtraValue" | "Verbs" => {
                let mut data = data;
                let mut items = Vec::new();
                while !data.is_empty() {
                    match next_field(&mut data) {
                        Some((1, Wire::Bytes(b))) => items.push(String::from_utf8_lossy(b).into_owned()),
                        Some(_) => {}
                        None => return Some(None),
                    }
                }
                Some(json!(items))
            }
            "JSONSchemaPropsOrBool" | "JSONSchemaPropsOrArray" | "JSONSchemaPropsOrStringArray" => {
                self.schema_or(data)
            }
            _ => return None,
        })
    }

    fn schema_or(&self, mut data: &[u8]) -> Option<Value> {
        let mut out = Value::Null;
        let mut list = Vec::new();
        while !data.is_empty() {
            match next_field(&mut data)? {
                (_, Wire::Number(n)) if out.is_null() => out = (n != 0).into(),
                (_, Wire::Bytes(b)) => {
                    let props = "k8s.io.apiextensions_apiserver.pkg.apis.apiextensions.v1.JSONSchemaProps";
                    let schema = self.message(props, b)?;
                    list.push(schema.clone());
                    out = schema;
                }
                _ => {}
            }
        }
        Some(if list.len() > 1 { Value::Array(list) } else { out })
    }
}

fn time(mut data: &[u8], micros: bool) -> Option<Value> {
    if data.is_empty() {
        return Some(Value::Null);
    }
    let (mut seconds, mut nanos) = (0i64, 0i32);
    while !data.is_empty() {
        match next_field(&mut data)? {
            (1, Wire::Number(n)) => seconds = n as i64,
            (2, Wire::Number(n)) => nanos = i32::try_from(n).unwrap_or(0),
            _ => {}
        }
    }
    let t = jiff::Timestamp::new(seconds, nanos).ok()?.to_string();
    crate::times::normalise(&t, micros).ok().map(Value::from)
}

fn int_or_string(mut data: &[u8]) -> Option<Value> {
    let (mut is_string, mut number, mut string) = (false, 0i64, String::new());
    while !data.is_empty() {
        match next_field(&mut data)? {
            (1, Wire::Number(n)) => is_string = n == 1,
            (2, Wire::Number(n)) => number = n as i64,
            (3, Wire::Bytes(b)) => string = String::from_utf8_lossy(b).into_owned(),
            _ => {}
        }
    }
    Some(if is_string { string.into() } else { number.into() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_account_as_kubectl_sends_it() {
        // typeMeta {v1, ServiceAccount}, raw {metadata {name: "x", namespace: "default", generation: 0}}
        let mut meta = vec![0x0a, 1, b'x', 0x12, 0, 0x1a, 7];
        meta.extend(b"default");
        meta.extend([0x38, 0]);
        let mut raw = vec![0x0a, u8::try_from(meta.len()).unwrap()];
        raw.extend(meta);
        let mut kind = vec![0x0a, 2];
        kind.extend(b"v1");
        kind.extend([0x12, 14]);
        kind.extend(b"ServiceAccount");
        let mut body = MAGIC.to_vec();
        body.extend([0x0a, u8::try_from(kind.len()).unwrap()]);
        body.extend(kind);
        body.extend([0x12, u8::try_from(raw.len()).unwrap()]);
        body.extend(raw);
        let value = Layouts::default().decode(&Definitions::load(), &body).unwrap();
        assert_eq!(
            value,
            json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "x", "namespace": "default"}})
        );
    }
}
