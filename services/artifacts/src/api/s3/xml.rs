//! The little XML that S3 needs.

use quick_xml::escape::escape;
use serde::Deserialize;

use super::fault::{Fault, FaultCode};

const NAMESPACE: &str = " xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\"";

/// Writes an element's children.
pub(crate) struct Element(String);

impl Element {
    /// A document with one root; `attributes` is put behind its name.
    fn root(name: &str, attributes: &str, fill: impl FnOnce(&mut Self)) -> String {
        let mut element = Self(format!(
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<{name}{attributes}>"
        ));
        fill(&mut element);
        element.0.push_str(&format!("</{name}>"));
        element.0
    }

    /// A document; errors have no namespace, all else has S3's.
    pub(crate) fn document(name: &str, namespace: &str, fill: impl FnOnce(&mut Self)) -> String {
        Self::root(name, namespace, fill)
    }

    /// A document in S3's namespace.
    pub(crate) fn answer(name: &str, fill: impl FnOnce(&mut Self)) -> String {
        Self::root(name, NAMESPACE, fill)
    }

    /// A child with text.
    pub(crate) fn text(&mut self, name: &str, text: impl AsRef<str>) {
        self.0
            .push_str(&format!("<{name}>{}</{name}>", escape(text.as_ref())));
    }

    /// A child with a number or a boolean.
    pub(crate) fn value(&mut self, name: &str, value: impl std::fmt::Display) {
        self.text(name, value.to_string());
    }

    /// A child with children.
    pub(crate) fn child(&mut self, name: &str, fill: impl FnOnce(&mut Self)) {
        self.0.push_str(&format!("<{name}>"));
        fill(self);
        self.0.push_str(&format!("</{name}>"));
    }
}

/// Body of `DeleteObjects`.
#[derive(Debug, Deserialize)]
pub(crate) struct Delete {
    #[serde(rename = "Object", default)]
    pub objects: Vec<DeleteObject>,
    #[serde(rename = "Quiet", default)]
    pub quiet: bool,
}

/// One object of it.
#[derive(Debug, Deserialize)]
pub(crate) struct DeleteObject {
    #[serde(rename = "Key")]
    pub key: String,
}

/// Body of `CompleteMultipartUpload`.
#[derive(Debug, Deserialize)]
pub(crate) struct Complete {
    #[serde(rename = "Part", default)]
    pub parts: Vec<CompletePart>,
}

/// One part of it.
#[derive(Debug, Deserialize)]
pub(crate) struct CompletePart {
    #[serde(rename = "PartNumber")]
    pub number: i64,
    #[serde(rename = "ETag")]
    pub etag: String,
}

/// Reads a body.
pub(crate) fn read<T: serde::de::DeserializeOwned>(bytes: &[u8]) -> Result<T, Fault> {
    let text = std::str::from_utf8(bytes)
        .map_err(|_| Fault::new(FaultCode::MalformedXML, "the body is not UTF-8"))?;
    quick_xml::de::from_str(text).map_err(|error| {
        Fault::new(
            FaultCode::MalformedXML,
            format!("the body is not the XML of this operation: {error}"),
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bodies_of_clients_are_read() {
        let body = r#"<Delete xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><Object><Key>a &amp; b</Key></Object>
            <Object><Key>c</Key><VersionId>null</VersionId></Object><Quiet>true</Quiet></Delete>"#;
        let delete: Delete = read(body.as_bytes()).unwrap();
        assert!(delete.quiet);
        assert_eq!(
            delete.objects.iter().map(|o| o.key.as_str()).collect::<Vec<_>>(),
            ["a & b", "c"]
        );
        let body = r#"<CompleteMultipartUpload><Part><ETag>"x"</ETag><PartNumber>1</PartNumber>
            <ChecksumCRC32>AA==</ChecksumCRC32></Part></CompleteMultipartUpload>"#;
        let complete: Complete = read(body.as_bytes()).unwrap();
        assert_eq!(
            (complete.parts[0].number, complete.parts[0].etag.as_str()),
            (1, "\"x\"")
        );
        assert!(read::<Delete>(b"<Delete><Object>").is_err());
    }

    #[test]
    fn text_is_escaped() {
        let document = Element::answer("R", |r| r.text("Key", "a<b>&\"c"));
        assert!(
            document.ends_with("<Key>a&lt;b&gt;&amp;&quot;c</Key></R>"),
            "{document}"
        );
    }
}
