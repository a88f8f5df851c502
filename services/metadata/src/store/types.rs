//! Types and their declared properties.

use std::collections::{BTreeMap, HashMap};

use ferroflow_db::{DbError, Row, Tx, Value, params};
use ferroflow_kernel::{Code, Error};

use super::{BATCH, Reader, marks};
use crate::domain::model::{Evolution, Kind, NodeType};

const SELECT: &str =
    "SELECT id, name, version, description, external_id, base_type, input_type, output_type FROM types";

/// Which types.
pub(crate) enum Which<'a> {
    All,
    Ids(&'a [i64]),
    Named(&'a str, &'a str),
    ExternalIds(&'a [String]),
}

/// Types of a kind, by id.
pub(crate) async fn read(
    reader: &mut impl Reader,
    namespace: &str,
    kind: Kind,
    which: Which<'_>,
) -> Result<Vec<NodeType>, DbError> {
    let mut found = Vec::new();
    let base = params![namespace, kind.code()];
    let whose = "namespace = $1 AND kind = $2";
    match which {
        Which::All => {
            found = reader
                .rows(&format!("{SELECT} WHERE {whose} ORDER BY id"), base)
                .await?;
        }
        Which::Named(name, version) => {
            let sql = format!("{SELECT} WHERE {whose} AND name = $3 AND version = $4");
            found = reader
                .rows(&sql, params![namespace, kind.code(), name, version])
                .await?;
        }
        Which::Ids(ids) => {
            for chunk in ids.chunks(BATCH) {
                let sql = format!(
                    "{SELECT} WHERE {whose} AND id IN ({}) ORDER BY id",
                    marks(3, chunk.len())
                );
                let values = base
                    .iter()
                    .cloned()
                    .chain(chunk.iter().map(|id| Value::from(*id)))
                    .collect();
                found.extend(reader.rows(&sql, values).await?);
            }
        }
        Which::ExternalIds(ids) => {
            for chunk in ids.chunks(BATCH) {
                let sql = format!(
                    "{SELECT} WHERE {whose} AND external_id IN ({}) ORDER BY id",
                    marks(3, chunk.len())
                );
                let values = base
                    .iter()
                    .cloned()
                    .chain(chunk.iter().map(Value::from))
                    .collect();
                found.extend(reader.rows(&sql, values).await?);
            }
        }
    }
    let mut types = found
        .iter()
        .map(|row| one(row, kind))
        .collect::<Result<Vec<_>, _>>()?;
    let ids: Vec<i64> = types.iter().map(|of| of.id).collect();
    let mut properties: HashMap<i64, BTreeMap<String, i32>> = HashMap::new();
    for chunk in ids.chunks(BATCH) {
        let marks = marks(1, chunk.len());
        let sql = format!("SELECT type_id, name, data_type FROM type_properties WHERE type_id IN ({marks})");
        for row in reader
            .rows(&sql, chunk.iter().map(|id| Value::from(*id)).collect())
            .await?
        {
            let data_type = i32::try_from(row.int(2)?).unwrap_or(0);
            properties
                .entry(row.int(0)?)
                .or_default()
                .insert(row.text(1)?, data_type);
        }
    }
    for of in &mut types {
        of.properties = properties.remove(&of.id).unwrap_or_default();
    }
    Ok(types)
}

fn one(row: &Row, kind: Kind) -> Result<NodeType, DbError> {
    Ok(NodeType {
        id: row.int(0)?,
        kind,
        name: row.text(1)?,
        version: row.text(2)?,
        description: row.opt_text(3)?,
        external_id: row.opt_text(4)?,
        properties: BTreeMap::new(),
        base_type: row.opt_int(5)?.and_then(|number| i32::try_from(number).ok()),
        input_type: row.opt_bytes(6)?,
        output_type: row.opt_bytes(7)?,
    })
}

/// Creates a type, or checks it against the stored one and adds what may be added. Answers its id.
pub(crate) async fn put(
    tx: &mut Tx,
    namespace: &str,
    new: &NodeType,
    allowed: Evolution,
) -> Result<i64, DbError> {
    let what = format!("{} type", new.kind.name());
    if new.name.is_empty() {
        return Err(Error::field("name", format!("a {what} needs one")).into());
    }
    if let Some((name, _)) = new
        .properties
        .iter()
        .find(|(_, data_type)| !(1..=6).contains(*data_type))
    {
        return Err(Error::field(format!("properties[{name:?}]"), "has no data type").into());
    }
    let stored = read(tx, namespace, new.kind, Which::Named(&new.name, &new.version)).await?;
    if let Some(stored) = stored.first() {
        let added = new.evolve(stored, allowed)?;
        for (name, data_type) in added {
            let sql = "INSERT INTO type_properties (type_id, name, data_type) VALUES ($1, $2, $3)";
            tx.execute(sql, params![stored.id, name, data_type]).await?;
        }
        if let Some(external_id) = new
            .external_id
            .as_ref()
            .filter(|id| stored.external_id.as_ref() != Some(id))
        {
            let sql = "UPDATE types SET external_id = $1 WHERE id = $2";
            tx.execute(sql, params![external_id, stored.id])
                .await
                .map_err(|error| taken(error, &what, external_id))?;
        }
        return Ok(stored.id);
    }
    let sql =
        "INSERT INTO types (namespace, kind, name, version, description, external_id, base_type, input_type,
               output_type) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9) RETURNING id";
    let values = params![
        namespace,
        new.kind.code(),
        &new.name,
        &new.version,
        new.description.clone(),
        new.external_id.clone(),
        new.base_type.map(i64::from),
        new.input_type.clone(),
        new.output_type.clone(),
    ];
    let rows = tx
        .fetch_all(sql, values)
        .await
        .map_err(|error| taken(error, &what, &new.name))?;
    let id = rows
        .first()
        .ok_or_else(|| Error::internal("an insert answered no id"))?
        .int(0)?;
    for (name, data_type) in &new.properties {
        let sql = "INSERT INTO type_properties (type_id, name, data_type) VALUES ($1, $2, $3)";
        tx.execute(sql, params![id, name, *data_type]).await?;
    }
    Ok(id)
}

/// A violated unique key in words.
pub(crate) fn taken(error: DbError, what: &str, name: &str) -> DbError {
    if error.is_conflict() {
        return Error::new(Code::AlreadyExists, format!("{what} {name:?} already exists")).into();
    }
    error
}
