//! Between MLMD's messages and the domain.

use std::collections::{BTreeMap, HashMap};

use ferroflow_api::ml_metadata as pb;
use ferroflow_kernel::Error;
use prost::Message;

use crate::domain::model::{Event, Kind, Node, NodeType, Property};
use crate::store::list::{ListQuery, Order, Within};

fn properties(map: HashMap<String, pb::Value>, field: &str) -> Result<BTreeMap<String, Property>, Error> {
    let mut all = BTreeMap::new();
    for (name, value) in map {
        use pb::value::Value;
        let value = match value.value {
            Some(Value::IntValue(value)) => Property::Int(value),
            Some(Value::DoubleValue(value)) => Property::Real(value),
            Some(Value::StringValue(value)) => Property::Text(value),
            Some(Value::StructValue(value)) => Property::Struct(value.encode_to_vec()),
            Some(Value::ProtoValue(value)) => Property::Proto(value.encode_to_vec()),
            Some(Value::BoolValue(value)) => Property::Bool(value),
            None => return Err(Error::field(format!("{field}[{name:?}]"), "has no value")),
        };
        all.insert(name, value);
    }
    Ok(all)
}

fn values(properties: BTreeMap<String, Property>) -> HashMap<String, pb::Value> {
    use pb::value::Value;
    let value = |property| match property {
        Property::Int(value) => Some(Value::IntValue(value)),
        Property::Real(value) => Some(Value::DoubleValue(value)),
        Property::Text(value) => Some(Value::StringValue(value)),
        Property::Bool(value) => Some(Value::BoolValue(value)),
        // the bytes were encoded from these messages
        Property::Struct(bytes) => pbjson_types::Struct::decode(&bytes[..])
            .ok()
            .map(Value::StructValue),
        Property::Proto(bytes) => pbjson_types::Any::decode(&bytes[..]).ok().map(Value::ProtoValue),
    };
    properties
        .into_iter()
        .map(|(name, property)| {
            (
                name,
                pb::Value {
                    value: value(property),
                },
            )
        })
        .collect()
}

fn any(bytes: Option<Vec<u8>>) -> Option<pbjson_types::Any> {
    bytes.and_then(|bytes| pbjson_types::Any::decode(&bytes[..]).ok())
}

fn some(text: Option<String>) -> Option<String> {
    text.filter(|text| !text.is_empty())
}

macro_rules! node {
    ($message:ident, $kind:ident, $to:ident, $from:ident, $state:ident, $uri:ident $(, $rest:expr)?) => {
        /// From MLMD's message.
        pub(crate) fn $to(message: pb::$message) -> Result<Node, Error> {
            Ok(Node {
                id: message.id.unwrap_or(0),
                kind: Kind::$kind,
                type_id: message.type_id.unwrap_or(0),
                type_name: String::new(),
                uri: node!(@uri $uri, message),
                state: node!(@state $state, message),
                name: some(message.name),
                external_id: some(message.external_id),
                properties: properties(message.properties, "properties")?,
                custom: properties(message.custom_properties, "custom_properties")?,
                created: message.create_time_since_epoch.unwrap_or(0),
                updated: message.last_update_time_since_epoch.unwrap_or(0),
                system_metadata: message.system_metadata.map(|any| any.encode_to_vec()),
            })
        }

        /// To MLMD's message.
        pub(crate) fn $from(node: Node) -> pb::$message {
            let mut message = pb::$message {
                id: Some(node.id),
                type_id: Some(node.type_id),
                r#type: Some(node.type_name),
                name: node.name,
                external_id: node.external_id,
                properties: values(node.properties),
                custom_properties: values(node.custom),
                create_time_since_epoch: Some(node.created),
                last_update_time_since_epoch: Some(node.updated),
                system_metadata: any(node.system_metadata),
                $(..$rest)?
            };
            node!(@set_uri $uri, message, node.uri);
            node!(@set_state $state, message, node.state);
            message
        }
    };
    (@uri none, $message:ident) => { None };
    (@uri $field:ident, $message:ident) => { $message.$field.clone() };
    (@state none, $message:ident) => { None };
    (@state $field:ident, $message:ident) => { $message.$field };
    (@set_uri none, $message:ident, $value:expr) => { let _ = ($value, &mut $message); };
    (@set_uri $field:ident, $message:ident, $value:expr) => { $message.$field = $value; };
    (@set_state none, $message:ident, $value:expr) => { let _ = ($value, &mut $message); };
    (@set_state $field:ident, $message:ident, $value:expr) => { $message.$field = $value; };
}

node!(
    Artifact,
    Artifact,
    to_artifact,
    from_artifact,
    state,
    uri,
    pb::Artifact::default()
);
node!(
    Execution,
    Execution,
    to_execution,
    from_execution,
    last_known_state,
    none,
    pb::Execution::default()
);
node!(Context, Context, to_context, from_context, none, none);

macro_rules! node_type {
    ($message:ident, $kind:ident, $to:ident, $from:ident $(, $rest:expr)?) => {
        /// From MLMD's message.
        pub(crate) fn $to(message: pb::$message) -> NodeType {
            NodeType {
                id: 0,
                kind: Kind::$kind,
                name: message.name.clone().unwrap_or_default(),
                version: message.version.clone().unwrap_or_default(),
                description: some(message.description.clone()),
                external_id: some(message.external_id.clone()),
                properties: message.properties.clone().into_iter().collect(),
                base_type: message.base_type,
                input_type: node_type!(@input $kind, message),
                output_type: node_type!(@output $kind, message),
            }
        }

        /// To MLMD's message.
        pub(crate) fn $from(of: NodeType) -> pb::$message {
            let mut message = pb::$message {
                id: Some(of.id),
                name: Some(of.name),
                version: some(Some(of.version)),
                description: of.description,
                external_id: of.external_id,
                properties: of.properties.into_iter().collect(),
                base_type: of.base_type,
                $(..$rest)?
            };
            node_type!(@fill $kind, message, of.input_type, of.output_type);
            message
        }
    };
    (@input Execution, $message:ident) => { $message.input_type.as_ref().map(|of| of.encode_to_vec()) };
    (@input $kind:ident, $message:ident) => { None };
    (@output Execution, $message:ident) => { $message.output_type.as_ref().map(|of| of.encode_to_vec()) };
    (@output $kind:ident, $message:ident) => { None };
    (@fill Execution, $message:ident, $input:expr, $output:expr) => {
        $message.input_type = $input.and_then(|bytes| pb::ArtifactStructType::decode(&bytes[..]).ok());
        $message.output_type = $output.and_then(|bytes| pb::ArtifactStructType::decode(&bytes[..]).ok());
    };
    (@fill $kind:ident, $message:ident, $input:expr, $output:expr) => { let _ = (&mut $message, $input, $output); };
}

node_type!(ArtifactType, Artifact, to_artifact_type, from_artifact_type);
node_type!(
    ExecutionType,
    Execution,
    to_execution_type,
    from_execution_type,
    pb::ExecutionType::default()
);
node_type!(ContextType, Context, to_context_type, from_context_type);

/// From MLMD's message; the time of an event that has none is `now`.
pub(crate) fn to_event(message: pb::Event, now: i64) -> Event {
    Event {
        artifact: message.artifact_id.unwrap_or(0),
        execution: message.execution_id.unwrap_or(0),
        kind: message.r#type.unwrap_or(0),
        time: message.milliseconds_since_epoch.unwrap_or(now),
        path: message.path.map(|path| path.encode_to_vec()),
    }
}

/// To MLMD's message.
pub(crate) fn from_event(event: Event) -> pb::Event {
    pb::Event {
        artifact_id: Some(event.artifact),
        execution_id: Some(event.execution),
        r#type: Some(event.kind),
        milliseconds_since_epoch: Some(event.time),
        path: event
            .path
            .and_then(|bytes| pb::event::Path::decode(&bytes[..]).ok()),
        system_metadata: None,
    }
}

/// From MLMD's options. None at all is everything at once.
pub(crate) fn to_list(options: Option<pb::ListOperationOptions>, within: Within) -> Result<ListQuery, Error> {
    let Some(options) = options else {
        return Ok(ListQuery::all(within));
    };
    let limit = options.max_result_size();
    if limit < 1 {
        return Err(Error::field(
            "options.max_result_size",
            format!("{limit} is less than 1"),
        ));
    }
    let order = options.order_by_field.unwrap_or_default();
    use pb::list_operation_options::order_by_field::Field;
    Ok(ListQuery {
        within,
        filter: options.filter_query.clone().unwrap_or_default(),
        order: match order.field() {
            Field::CreateTime => Order::Created,
            Field::LastUpdateTime => Order::Updated,
            Field::Id | Field::Unspecified => Order::Id,
        },
        ascending: order.is_asc(),
        limit: Some(usize::try_from(limit).unwrap_or(1).min(100)),
        page_token: options.next_page_token.unwrap_or_default(),
    })
}

/// A page token as MLMD has it: absent at the end.
pub(crate) fn token(text: String) -> Option<String> {
    some(Some(text))
}
