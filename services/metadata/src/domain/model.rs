//! Nodes of the lineage graph. Artifacts, executions and contexts differ in two fields, so they are one thing here.

use std::collections::BTreeMap;

use ferroflow_kernel::Error;

/// What a node or a type is. The numbers are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// One run of something.
    Execution = 0,
    /// A thing that is read or written.
    Artifact = 1,
    /// A group of both.
    Context = 2,
}

impl Kind {
    /// As stored.
    pub fn code(self) -> i64 {
        self as i64
    }

    /// For texts.
    pub fn name(self) -> &'static str {
        match self {
            Self::Execution => "execution",
            Self::Artifact => "artifact",
            Self::Context => "context",
        }
    }
}

/// Data types of properties, as in MLMD's `PropertyType`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DataType(pub i32);

impl DataType {
    /// For texts.
    pub fn name(self) -> &'static str {
        match self.0 {
            1 => "INT",
            2 => "DOUBLE",
            3 => "STRING",
            4 => "STRUCT",
            5 => "PROTO",
            6 => "BOOLEAN",
            _ => "UNKNOWN",
        }
    }
}

/// A property's value. Structs and protos are kept as their bytes.
#[derive(Debug, Clone, PartialEq)]
pub enum Property {
    /// `INT`
    Int(i64),
    /// `DOUBLE`
    Real(f64),
    /// `STRING`
    Text(String),
    /// `STRUCT`, an encoded `google.protobuf.Struct`
    Struct(Vec<u8>),
    /// `PROTO`, an encoded `google.protobuf.Any`
    Proto(Vec<u8>),
    /// `BOOLEAN`
    Bool(bool),
}

impl Property {
    /// Its data type.
    pub fn data_type(&self) -> DataType {
        DataType(match self {
            Self::Int(_) => 1,
            Self::Real(_) => 2,
            Self::Text(_) => 3,
            Self::Struct(_) => 4,
            Self::Proto(_) => 5,
            Self::Bool(_) => 6,
        })
    }
}

/// A type of artifacts, executions or contexts.
#[derive(Debug, Clone, PartialEq)]
pub struct NodeType {
    /// 0 before it is stored.
    pub id: i64,
    /// What it is a type of.
    pub kind: Kind,
    /// Its name.
    pub name: String,
    /// Empty is no version.
    pub version: String,
    /// In somebody's words.
    pub description: Option<String>,
    /// Unique among the types of its kind.
    pub external_id: Option<String>,
    /// Declared properties and their data types.
    pub properties: BTreeMap<String, i32>,
    /// MLMD's system-defined base type.
    pub base_type: Option<i32>,
    /// Encoded `ArtifactStructType` of an execution's inputs.
    pub input_type: Option<Vec<u8>>,
    /// Encoded `ArtifactStructType` of an execution's outputs.
    pub output_type: Option<Vec<u8>>,
}

/// How a type may differ from the stored one of its name.
#[derive(Debug, Clone, Copy, Default)]
pub struct Evolution {
    /// The request may bring new properties.
    pub can_add: bool,
    /// The request may leave out stored ones.
    pub can_omit: bool,
}

impl NodeType {
    /// Properties to add to the stored type, or why the two do not fit.
    pub fn evolve(&self, stored: &Self, allowed: Evolution) -> Result<Vec<(String, i32)>, Error> {
        let conflict = |what: String| {
            let kind = self.kind.name();
            Error::new(
                ferroflow_kernel::Code::AlreadyExists,
                format!(
                    "{kind} type {:?} already exists with other properties: {what}",
                    self.name
                ),
            )
        };
        let mut added = Vec::new();
        for (name, data_type) in &self.properties {
            match stored.properties.get(name) {
                Some(known) if known == data_type => {}
                Some(known) => {
                    let (known, new) = (DataType(*known).name(), DataType(*data_type).name());
                    return Err(conflict(format!("{name:?} is {known}, not {new}")));
                }
                None if allowed.can_add => added.push((name.clone(), *data_type)),
                None => return Err(conflict(format!("{name:?} is new; set can_add_fields to add it"))),
            }
        }
        if !allowed.can_omit
            && let Some(name) = stored
                .properties
                .keys()
                .find(|name| !self.properties.contains_key(*name))
        {
            return Err(conflict(format!(
                "{name:?} is left out; set can_omit_fields to allow it"
            )));
        }
        Ok(added)
    }
}

/// A node of the graph.
#[derive(Debug, Clone, PartialEq)]
pub struct Node {
    /// 0 before it is stored.
    pub id: i64,
    /// What it is.
    pub kind: Kind,
    /// Its type.
    pub type_id: i64,
    /// Name of its type; filled when read.
    pub type_name: String,
    /// Unique in its type.
    pub name: Option<String>,
    /// Unique among the nodes of its kind.
    pub external_id: Option<String>,
    /// Of an artifact.
    pub uri: Option<String>,
    /// Of an artifact or execution, in MLMD's numbers.
    pub state: Option<i32>,
    /// Declared by its type.
    pub properties: BTreeMap<String, Property>,
    /// Anything else.
    pub custom: BTreeMap<String, Property>,
    /// Milliseconds since 1970.
    pub created: i64,
    /// Milliseconds since 1970.
    pub updated: i64,
    /// An encoded `google.protobuf.Any`.
    pub system_metadata: Option<Vec<u8>>,
}

impl Node {
    /// Fails unless the declared properties have the declared data types.
    pub fn check(&self, of: &NodeType) -> Result<(), Error> {
        for (name, value) in &self.properties {
            let field = || format!("properties[{name:?}]");
            let Some(declared) = of.properties.get(name) else {
                let text = format!(
                    "type {:?} declares no such property; use custom_properties or add it",
                    of.name
                );
                return Err(Error::field(field(), text));
            };
            if value.data_type() != DataType(*declared) {
                let (is, wanted) = (value.data_type().name(), DataType(*declared).name());
                return Err(Error::field(
                    field(),
                    format!("is {is}, but type {:?} declares {wanted}", of.name),
                ));
            }
        }
        Ok(())
    }

    /// Takes over from `new` what a mask names; an empty mask names all. Paths as in MLMD: `uri`, `state`,
    /// `last_known_state`, `external_id`, `properties`, `properties.<name>`, `custom_properties[.<name>]`.
    pub fn update(&mut self, new: &Self, mask: &[String]) {
        let whole = |path: &str| mask.is_empty() || mask.iter().any(|named| named == path);
        if whole("uri") {
            self.uri.clone_from(&new.uri);
        }
        if whole("state") || whole("last_known_state") {
            self.state = new.state.or(if mask.is_empty() { self.state } else { None });
        }
        if whole("external_id") && new.external_id.is_some() {
            self.external_id.clone_from(&new.external_id);
        }
        if new.system_metadata.is_some() && whole("system_metadata") {
            self.system_metadata.clone_from(&new.system_metadata);
        }
        for (path, own, theirs) in [
            ("properties", &mut self.properties, &new.properties),
            ("custom_properties", &mut self.custom, &new.custom),
        ] {
            if whole(path) {
                own.clone_from(theirs);
                continue;
            }
            let prefix = format!("{path}.");
            for name in mask.iter().filter_map(|named| named.strip_prefix(&prefix)) {
                match theirs.get(name) {
                    Some(value) => own.insert(name.to_owned(), value.clone()),
                    None => own.remove(name),
                };
            }
        }
    }
}

/// An execution read or wrote an artifact.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    /// The artifact.
    pub artifact: i64,
    /// The execution.
    pub execution: i64,
    /// MLMD's `Event.Type`.
    pub kind: i32,
    /// Milliseconds since 1970.
    pub time: i64,
    /// An encoded `Event.Path`.
    pub path: Option<Vec<u8>>,
}

impl Event {
    /// Did the execution write the artifact?
    pub fn is_output(&self) -> bool {
        matches!(self.kind, 1 | 4 | 6 | 7)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(properties: &[(&str, i32)]) -> NodeType {
        NodeType {
            id: 1,
            kind: Kind::Artifact,
            name: "t".to_owned(),
            version: String::new(),
            description: None,
            external_id: None,
            properties: properties
                .iter()
                .map(|(name, data_type)| ((*name).to_owned(), *data_type))
                .collect(),
            base_type: None,
            input_type: None,
            output_type: None,
        }
    }

    #[test]
    fn a_type_evolves_only_as_allowed() {
        let stored = of(&[("a", 1), ("b", 3)]);
        let all = Evolution {
            can_add: true,
            can_omit: true,
        };
        assert!(stored.evolve(&stored, Evolution::default()).unwrap().is_empty());
        assert!(of(&[("a", 1)]).evolve(&stored, Evolution::default()).is_err());
        assert!(of(&[("a", 1)]).evolve(&stored, all).is_ok());
        let wider = of(&[("a", 1), ("b", 3), ("c", 2)]);
        assert!(wider.evolve(&stored, Evolution::default()).is_err());
        assert_eq!(wider.evolve(&stored, all).unwrap(), [("c".to_owned(), 2)]);
        assert!(
            of(&[("a", 2), ("b", 3)]).evolve(&stored, all).is_err(),
            "a data type never changes"
        );
    }
}
