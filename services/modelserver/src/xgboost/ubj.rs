//! A serde reader for UBJSON (draft 12) with the typed, counted arrays that xgboost writes.

use serde::de::value::StrDeserializer;
use serde::de::{
    DeserializeOwned, DeserializeSeed, Deserializer, Error as _, IntoDeserializer, MapAccess, SeqAccess,
    Visitor,
};
use serde::forward_to_deserialize_any;
use std::fmt;

/// Containers inside containers.
const MAX_DEPTH: usize = 64;

/// What is wrong with the bytes, and where.
#[derive(Debug, Clone, PartialEq)]
pub struct UbjError(String);

impl fmt::Display for UbjError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for UbjError {}

impl serde::de::Error for UbjError {
    fn custom<T: fmt::Display>(text: T) -> Self {
        Self(text.to_string())
    }
}

/// Reads one value from the bytes.
pub fn from_slice<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, UbjError> {
    let mut reader = Reader {
        bytes,
        at: 0,
        depth: 0,
    };
    T::deserialize(&mut reader).map_err(|error| UbjError(format!("{error} (near byte {})", reader.at)))
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
    depth: usize,
}

impl<'a> Reader<'a> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N], UbjError> {
        let chunk = self.bytes.get(self.at..).and_then(|rest| rest.first_chunk::<N>());
        let chunk = chunk.ok_or_else(|| UbjError::custom("unexpected end of file"))?;
        self.at += N;
        Ok(*chunk)
    }

    fn marker(&mut self) -> Result<u8, UbjError> {
        loop {
            let [byte] = self.take::<1>()?;
            if byte != b'N' {
                return Ok(byte);
            }
        }
    }

    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    fn integer(&mut self, marker: u8) -> Result<i64, UbjError> {
        Ok(match marker {
            b'i' => i64::from(i8::from_be_bytes(self.take()?)),
            b'U' => i64::from(u8::from_be_bytes(self.take()?)),
            b'I' => i64::from(i16::from_be_bytes(self.take()?)),
            b'l' => i64::from(i32::from_be_bytes(self.take()?)),
            b'L' => i64::from_be_bytes(self.take()?),
            other => {
                return Err(UbjError::custom(format_args!(
                    "expected a length, found {:?}",
                    char::from(other)
                )));
            }
        })
    }

    fn length(&mut self) -> Result<usize, UbjError> {
        let marker = self.marker()?;
        let length = self.integer(marker)?;
        // No element is empty, except typed null or truth values, which xgboost does not write.
        usize::try_from(length)
            .ok()
            .filter(|length| *length <= self.bytes.len())
            .ok_or_else(|| {
                UbjError::custom(format_args!(
                    "a length of {length} in a file of {} bytes",
                    self.bytes.len()
                ))
            })
    }

    fn text(&mut self) -> Result<&'a str, UbjError> {
        let length = self.length()?;
        let raw = self
            .bytes
            .get(self.at..self.at + length)
            .ok_or_else(|| UbjError::custom("unexpected end of file"))?;
        self.at += length;
        std::str::from_utf8(raw).map_err(|_| UbjError::custom("a text that is not UTF-8"))
    }

    /// `$type` and `#count` of a container.
    fn header(&mut self) -> Result<(Option<u8>, Option<usize>), UbjError> {
        let mut kind = None;
        if self.peek() == Some(b'$') {
            self.at += 1;
            kind = Some(self.marker()?);
            if self.peek() != Some(b'#') {
                return Err(UbjError::custom("a typed container without a count"));
            }
        }
        if self.peek() == Some(b'#') {
            self.at += 1;
            return Ok((kind, Some(self.length()?)));
        }
        Ok((kind, None))
    }

    fn value<'de, V: Visitor<'de>>(&mut self, marker: u8, visitor: V) -> Result<V::Value, UbjError> {
        match marker {
            b'Z' => visitor.visit_unit(),
            b'T' => visitor.visit_bool(true),
            b'F' => visitor.visit_bool(false),
            b'U' => visitor.visit_u64(u64::from(u8::from_be_bytes(self.take()?))),
            b'i' | b'I' | b'l' | b'L' => {
                let value = self.integer(marker)?;
                match u64::try_from(value) {
                    Ok(value) => visitor.visit_u64(value),
                    Err(_) => visitor.visit_i64(value),
                }
            }
            b'd' => visitor.visit_f32(f32::from_be_bytes(self.take()?)),
            b'D' => visitor.visit_f64(f64::from_be_bytes(self.take()?)),
            b'C' => {
                let [byte] = self.take::<1>()?;
                visitor.visit_char(char::from(byte))
            }
            b'S' | b'H' => visitor.visit_str(self.text()?),
            b'[' | b'{' => {
                if self.depth >= MAX_DEPTH {
                    return Err(UbjError::custom(format_args!(
                        "more than {MAX_DEPTH} levels of nesting"
                    )));
                }
                self.depth += 1;
                let (kind, left) = self.header()?;
                let container = Container {
                    reader: self,
                    kind,
                    left,
                };
                let value = if marker == b'[' {
                    visitor.visit_seq(container)?
                } else {
                    visitor.visit_map(container)?
                };
                self.depth -= 1;
                Ok(value)
            }
            other => Err(UbjError::custom(format_args!(
                "unknown type marker {:?}",
                char::from(other)
            ))),
        }
    }
}

impl<'de> Deserializer<'de> for &mut Reader<'_> {
    type Error = UbjError;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, UbjError> {
        let marker = self.marker()?;
        self.value(marker, visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, UbjError> {
        if self.peek() == Some(b'Z') {
            self.at += 1;
            return visitor.visit_none();
        }
        visitor.visit_some(self)
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit unit_struct
        newtype_struct seq tuple tuple_struct map struct enum identifier ignored_any
    }
}

/// A value whose type is known from its container.
struct Typed<'r, 'a> {
    reader: &'r mut Reader<'a>,
    kind: u8,
}

impl<'de> Deserializer<'de> for Typed<'_, '_> {
    type Error = UbjError;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, UbjError> {
        self.reader.value(self.kind, visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, UbjError> {
        visitor.visit_some(self)
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit unit_struct
        newtype_struct seq tuple tuple_struct map struct enum identifier ignored_any
    }
}

struct Container<'r, 'a> {
    reader: &'r mut Reader<'a>,
    kind: Option<u8>,
    left: Option<usize>,
}

impl Container<'_, '_> {
    /// Whether one more element follows.
    fn advance(&mut self, close: u8) -> bool {
        match &mut self.left {
            Some(0) => false,
            Some(left) => {
                *left -= 1;
                true
            }
            None if self.reader.peek() == Some(close) => {
                self.reader.at += 1;
                false
            }
            None => true,
        }
    }

    fn element<'de, T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<T::Value, UbjError> {
        match self.kind {
            Some(kind) => seed.deserialize(Typed {
                reader: self.reader,
                kind,
            }),
            None => seed.deserialize(&mut *self.reader),
        }
    }
}

impl<'de> SeqAccess<'de> for Container<'_, '_> {
    type Error = UbjError;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, UbjError> {
        if self.advance(b']') {
            self.element(seed).map(Some)
        } else {
            Ok(None)
        }
    }

    fn size_hint(&self) -> Option<usize> {
        self.left
    }
}

impl<'de> MapAccess<'de> for Container<'_, '_> {
    type Error = UbjError;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, UbjError> {
        if !self.advance(b'}') {
            return Ok(None);
        }
        let key: StrDeserializer<'_, UbjError> = self.reader.text()?.into_deserializer();
        seed.deserialize(key).map(Some)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, UbjError> {
        self.element(seed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    #[test]
    fn typed_and_untyped_containers() {
        let bytes = b"{i\x01a[$d#i\x02\x3f\x80\x00\x00\x40\x00\x00\x00i\x01b[#U\x02i\x05Ti\x01c{}i\x01dSi\x02hii\x01e[L\x00\x00\x00\x00\x00\x00\x01\x00Z]}";
        let value: Value = from_slice(bytes).unwrap();
        assert_eq!(
            value,
            json!({"a": [1.0, 2.0], "b": [5, true], "c": {}, "d": "hi", "e": [256, null]})
        );
    }

    #[test]
    fn torn_files_are_refused() {
        assert_eq!(
            from_slice::<Value>(b"{i\x01a[$d#i\x02\x3f")
                .unwrap_err()
                .to_string(),
            "unexpected end of file (near byte 10)"
        );
        let error = from_slice::<Value>(b"[$l#L\x7f\xff\xff\xff\xff\xff\xff\xff")
            .unwrap_err()
            .to_string();
        assert!(error.contains("a length of 9223372036854775807"), "{error}");
        let deep = vec![b'['; 1000];
        assert!(
            from_slice::<Value>(&deep)
                .unwrap_err()
                .to_string()
                .contains("levels of nesting")
        );
    }
}
