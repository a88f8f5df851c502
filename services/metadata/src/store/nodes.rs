//! Artifacts, executions and contexts, with their properties.

use std::collections::{BTreeMap, HashMap};

use ferroflow_db::{DbError, Row, Tx, Value, params};
use ferroflow_kernel::{Code, Error};

use super::types::{self, Which, taken};
use super::{BATCH, Reader, marks};
use crate::domain::model::{Kind, Node, Property};

const SELECT: &str =
    "SELECT n.id, n.type_id, t.name, n.name, n.external_id, n.uri, n.state, n.created, n.updated,
    n.system_metadata FROM nodes n JOIN types t ON t.id = n.type_id WHERE n.namespace = $1 AND n.kind = $2";

/// Which nodes.
pub(crate) enum By<'a> {
    Ids(&'a [i64]),
    ExternalIds(&'a [String]),
    Uris(&'a [String]),
    TypeAndName(i64, &'a str),
}

/// Nodes of a kind, by id.
pub(crate) async fn read(
    reader: &mut impl Reader,
    namespace: &str,
    kind: Kind,
    by: By<'_>,
) -> Result<Vec<Node>, DbError> {
    let (column, values): (&str, Vec<Value>) = match by {
        By::Ids(ids) => ("n.id", ids.iter().map(|id| Value::from(*id)).collect()),
        By::ExternalIds(ids) => ("n.external_id", ids.iter().map(Value::from).collect()),
        By::Uris(uris) => ("n.uri", uris.iter().map(Value::from).collect()),
        By::TypeAndName(type_id, name) => {
            let sql = format!("{SELECT} AND n.type_id = $3 AND n.name = $4");
            let rows = reader
                .rows(&sql, params![namespace, kind.code(), type_id, name])
                .await?;
            return fill(reader, kind, &rows).await;
        }
    };
    let mut rows = Vec::new();
    for chunk in values.chunks(BATCH) {
        let sql = format!(
            "{SELECT} AND {column} IN ({}) ORDER BY n.id",
            marks(3, chunk.len())
        );
        let mut params = params![namespace, kind.code()];
        params.extend(chunk.iter().cloned());
        rows.extend(reader.rows(&sql, params).await?);
    }
    fill(reader, kind, &rows).await
}

async fn fill(reader: &mut impl Reader, kind: Kind, rows: &[Row]) -> Result<Vec<Node>, DbError> {
    let mut nodes = rows
        .iter()
        .map(|row| one(row, kind))
        .collect::<Result<Vec<_>, _>>()?;
    let at: HashMap<i64, usize> = nodes
        .iter()
        .enumerate()
        .map(|(index, node)| (node.id, index))
        .collect();
    let ids: Vec<i64> = nodes.iter().map(|node| node.id).collect();
    for chunk in ids.chunks(BATCH) {
        let sql = format!(
            "SELECT node_id, custom, name, data_type, int_value, double_value, string_value, bool_value, bytes_value
             FROM properties WHERE node_id IN ({})",
            marks(1, chunk.len())
        );
        for row in reader
            .rows(&sql, chunk.iter().map(|id| Value::from(*id)).collect())
            .await?
        {
            let Some(node) = at.get(&row.int(0)?).and_then(|index| nodes.get_mut(*index)) else {
                continue;
            };
            let of = if row.bool(1)? {
                &mut node.custom
            } else {
                &mut node.properties
            };
            of.insert(row.text(2)?, property(&row)?);
        }
    }
    Ok(nodes)
}

fn one(row: &Row, kind: Kind) -> Result<Node, DbError> {
    Ok(Node {
        id: row.int(0)?,
        kind,
        type_id: row.int(1)?,
        type_name: row.text(2)?,
        name: row.opt_text(3)?,
        external_id: row.opt_text(4)?,
        uri: row.opt_text(5)?,
        state: row.opt_int(6)?.and_then(|number| i32::try_from(number).ok()),
        properties: BTreeMap::new(),
        custom: BTreeMap::new(),
        created: row.int(7)?,
        updated: row.int(8)?,
        system_metadata: row.opt_bytes(9)?,
    })
}

fn property(row: &Row) -> Result<Property, DbError> {
    Ok(match row.int(3)? {
        1 => Property::Int(row.int(4)?),
        2 => Property::Real(row.real(5)?),
        3 => Property::Text(row.text(6)?),
        4 => Property::Struct(row.bytes(8)?),
        5 => Property::Proto(row.bytes(8)?),
        _ => Property::Bool(row.bool(7)?),
    })
}

/// How to write a node.
#[derive(Debug, Clone, Default)]
pub(crate) struct Put<'a> {
    /// Fields to update; empty is all.
    pub mask: &'a [String],
    /// Refuse an update of what somebody else has updated since.
    pub check_updated: bool,
    /// Move the time of the last update even if nothing changes.
    pub touch: bool,
    /// Milliseconds since 1970.
    pub now: i64,
}

/// Creates a node, or updates the one of its id. Answers its id.
pub(crate) async fn put(tx: &mut Tx, namespace: &str, new: &Node, how: &Put<'_>) -> Result<i64, DbError> {
    if new.id == 0 {
        insert(tx, namespace, new, how.now).await
    } else {
        update(tx, namespace, new, how).await
    }
}

async fn insert(tx: &mut Tx, namespace: &str, new: &Node, now: i64) -> Result<i64, DbError> {
    let what = new.kind.name();
    if new.type_id == 0 {
        return Err(Error::field("type_id", format!("a new {what} needs one")).into());
    }
    let of = types::read(tx, namespace, new.kind, Which::Ids(&[new.type_id])).await?;
    let of = of
        .first()
        .ok_or_else(|| Error::field("type_id", format!("{what} type {} does not exist", new.type_id)))?;
    if new.kind == Kind::Context && new.name.as_deref().unwrap_or_default().is_empty() {
        return Err(Error::field("name", "a context needs one").into());
    }
    new.check(of)?;
    // looked up before, because a violated key ends the whole transaction on PostgreSQL
    if let Some(name) = &new.name
        && !read(tx, namespace, new.kind, By::TypeAndName(new.type_id, name))
            .await?
            .is_empty()
    {
        let text = format!("{what} {name:?} of type {:?} already exists", of.name);
        return Err(Error::new(Code::AlreadyExists, text).into());
    }
    let sql = "INSERT INTO nodes (namespace, kind, type_id, name, external_id, uri, state, created, updated,
               system_metadata) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $8, $9) RETURNING id";
    let values = params![
        namespace,
        new.kind.code(),
        new.type_id,
        new.name.clone(),
        new.external_id.clone(),
        new.uri.clone(),
        new.state.map(i64::from),
        now,
        new.system_metadata.clone(),
    ];
    let name = new
        .name
        .as_ref()
        .or(new.external_id.as_ref())
        .cloned()
        .unwrap_or_default();
    let rows = tx
        .fetch_all(sql, values)
        .await
        .map_err(|error| taken(error, what, &name))?;
    let id = rows
        .first()
        .ok_or_else(|| Error::internal("an insert answered no id"))?
        .int(0)?;
    write_properties(tx, id, new).await?;
    Ok(id)
}

async fn update(tx: &mut Tx, namespace: &str, new: &Node, how: &Put<'_>) -> Result<i64, DbError> {
    let what = new.kind.name();
    let stored = read(tx, namespace, new.kind, By::Ids(&[new.id])).await?;
    let stored = stored
        .first()
        .ok_or_else(|| Error::field("id", format!("{what} {} does not exist", new.id)))?;
    if new.type_id != 0 && new.type_id != stored.type_id {
        let text = format!(
            "{what} {} is of type {}, not {}; a type never changes",
            new.id, stored.type_id, new.type_id
        );
        return Err(Error::field("type_id", text).into());
    }
    if how.check_updated && new.updated != stored.updated {
        let text = format!("{what} {} was updated by somebody else; read it again", new.id);
        return Err(Error::new(Code::FailedPrecondition, text).into());
    }
    let mut updated = stored.clone();
    updated.update(new, how.mask);
    let of = types::read(tx, namespace, new.kind, Which::Ids(&[stored.type_id])).await?;
    if let Some(of) = of.first() {
        updated.check(of)?;
    }
    if updated == *stored && !how.touch {
        return Ok(new.id);
    }
    let sql = "UPDATE nodes SET external_id = $1, uri = $2, state = $3, updated = $4, system_metadata = $5 WHERE id = $6";
    let values = params![
        updated.external_id.clone(),
        updated.uri.clone(),
        updated.state.map(i64::from),
        how.now.max(stored.updated + 1),
        updated.system_metadata.clone(),
        new.id,
    ];
    let name = updated.external_id.clone().unwrap_or_default();
    tx.execute(sql, values)
        .await
        .map_err(|error| taken(error, what, &name))?;
    if updated.properties != stored.properties || updated.custom != stored.custom {
        tx.execute("DELETE FROM properties WHERE node_id = $1", params![new.id])
            .await?;
        write_properties(tx, new.id, &updated).await?;
    }
    Ok(new.id)
}

async fn write_properties(tx: &mut Tx, id: i64, node: &Node) -> Result<(), DbError> {
    for (custom, properties) in [(false, &node.properties), (true, &node.custom)] {
        for (name, value) in properties {
            let sql = "INSERT INTO properties (node_id, custom, name, data_type, int_value, double_value, string_value,
                       bool_value, bytes_value) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)";
            let (mut int, mut real, mut text, mut bool, mut bytes) =
                (None::<i64>, None::<f64>, None::<String>, None::<i64>, None);
            match value {
                Property::Int(value) => int = Some(*value),
                Property::Real(value) => real = Some(*value),
                Property::Text(value) => text = Some(value.clone()),
                Property::Bool(value) => bool = Some(i64::from(*value)),
                Property::Struct(value) | Property::Proto(value) => bytes = Some(value.clone()),
            }
            let values = params![
                id,
                custom,
                name,
                value.data_type().0,
                int,
                real,
                text,
                bool,
                bytes
            ];
            tx.execute(sql, values).await?;
        }
    }
    Ok(())
}
