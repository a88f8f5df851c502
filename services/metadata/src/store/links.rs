//! What joins nodes: events, memberships in contexts, and contexts in contexts.

use std::collections::BTreeSet;

use ferroflow_db::{DbError, Row, Tx, Value, params};
use ferroflow_kernel::{Code, Error};

use super::nodes::{self, By};
use super::{BATCH, Reader, marks};
use crate::domain::model::{Event, Kind};

/// Records an event; one of the same artifact, execution and type is recorded once.
pub(crate) async fn put_event(tx: &mut Tx, namespace: &str, event: &Event) -> Result<(), DbError> {
    if !(1..=7).contains(&event.kind) {
        return Err(Error::field("event.type", "is missing; set INPUT or OUTPUT").into());
    }
    exists(tx, namespace, Kind::Artifact, event.artifact, "event.artifact_id").await?;
    exists(
        tx,
        namespace,
        Kind::Execution,
        event.execution,
        "event.execution_id",
    )
    .await?;
    let sql = "INSERT INTO events (namespace, artifact_id, execution_id, type, made, path)
               VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT DO NOTHING";
    let Event {
        artifact,
        execution,
        kind,
        time,
        path,
    } = event;
    tx.execute(
        sql,
        params![namespace, *artifact, *execution, *kind, *time, path.clone()],
    )
    .await?;
    Ok(())
}

async fn exists(tx: &mut Tx, namespace: &str, kind: Kind, id: i64, field: &str) -> Result<(), DbError> {
    let sql = "SELECT 1 FROM nodes WHERE namespace = $1 AND kind = $2 AND id = $3";
    if tx
        .fetch_optional(sql, params![namespace, kind.code(), id])
        .await?
        .is_none()
    {
        return Err(Error::field(field, format!("{} {id} does not exist", kind.name())).into());
    }
    Ok(())
}

/// Puts a node into a context; twice is once.
pub(crate) async fn put_member(
    tx: &mut Tx,
    namespace: &str,
    context: i64,
    kind: Kind,
    node: i64,
) -> Result<(), DbError> {
    exists(tx, namespace, Kind::Context, context, "context_id").await?;
    exists(
        tx,
        namespace,
        kind,
        node,
        if kind == Kind::Artifact {
            "artifact_id"
        } else {
            "execution_id"
        },
    )
    .await?;
    let sql = "INSERT INTO members (context_id, node_id) VALUES ($1, $2) ON CONFLICT DO NOTHING";
    tx.execute(sql, params![context, node]).await?;
    Ok(())
}

/// Puts a context into another.
pub(crate) async fn put_parent(tx: &mut Tx, namespace: &str, child: i64, parent: i64) -> Result<(), DbError> {
    exists(tx, namespace, Kind::Context, child, "child_id").await?;
    exists(tx, namespace, Kind::Context, parent, "parent_id").await?;
    let sql = "SELECT 1 FROM parents WHERE child_id = $1 AND parent_id = $2";
    if tx.fetch_optional(sql, params![child, parent]).await?.is_some() {
        let text = format!("context {parent} already is a parent of context {child}");
        return Err(Error::new(Code::AlreadyExists, text).into());
    }
    let mut above = BTreeSet::new();
    let mut next = vec![parent];
    while let Some(context) = next.pop() {
        if context == child {
            return Err(Error::field(
                "parent_id",
                format!("context {child} would become its own ancestor"),
            )
            .into());
        }
        if above.insert(context) {
            let rows = tx
                .fetch_all(
                    "SELECT parent_id FROM parents WHERE child_id = $1",
                    params![context],
                )
                .await?;
            for row in rows {
                next.push(row.int(0)?);
            }
        }
    }
    tx.execute(
        "INSERT INTO parents (child_id, parent_id) VALUES ($1, $2)",
        params![child, parent],
    )
    .await?;
    Ok(())
}

/// Events of these artifacts or executions, oldest first.
pub(crate) async fn events(
    reader: &mut impl Reader,
    namespace: &str,
    kind: Kind,
    ids: &[i64],
) -> Result<Vec<Event>, DbError> {
    let column = if kind == Kind::Artifact {
        "artifact_id"
    } else {
        "execution_id"
    };
    let mut events = Vec::new();
    for chunk in ids.chunks(BATCH) {
        let sql = format!(
            "SELECT artifact_id, execution_id, type, made, path FROM events
             WHERE namespace = $1 AND {column} IN ({}) ORDER BY id",
            marks(2, chunk.len())
        );
        let mut values = params![namespace];
        values.extend(chunk.iter().map(|id| Value::from(*id)));
        for row in reader.rows(&sql, values).await? {
            events.push(Event {
                artifact: row.int(0)?,
                execution: row.int(1)?,
                kind: i32::try_from(row.int(2)?).unwrap_or(0),
                time: row.int(3)?,
                path: row.opt_bytes(4)?,
            });
        }
    }
    Ok(events)
}

/// (context, node) of these nodes.
pub(crate) async fn memberships(reader: &mut impl Reader, nodes: &[i64]) -> Result<Vec<(i64, i64)>, DbError> {
    pairs(
        reader,
        "SELECT context_id, node_id FROM members WHERE node_id IN",
        nodes,
    )
    .await
}

/// (child, parent) of these children.
pub(crate) async fn parents_of(
    reader: &mut impl Reader,
    children: &[i64],
) -> Result<Vec<(i64, i64)>, DbError> {
    pairs(
        reader,
        "SELECT child_id, parent_id FROM parents WHERE child_id IN",
        children,
    )
    .await
}

/// (child, parent) of these parents.
pub(crate) async fn children_of(
    reader: &mut impl Reader,
    parents: &[i64],
) -> Result<Vec<(i64, i64)>, DbError> {
    pairs(
        reader,
        "SELECT child_id, parent_id FROM parents WHERE parent_id IN",
        parents,
    )
    .await
}

async fn pairs(reader: &mut impl Reader, select: &str, ids: &[i64]) -> Result<Vec<(i64, i64)>, DbError> {
    let mut found = Vec::new();
    for chunk in ids.chunks(BATCH) {
        let sql = format!("{select} ({}) ORDER BY 1, 2", marks(1, chunk.len()));
        let rows = reader
            .rows(&sql, chunk.iter().map(|id| Value::from(*id)).collect())
            .await?;
        let both = |row: &Row| Ok::<_, DbError>((row.int(0)?, row.int(1)?));
        found.extend(rows.iter().map(both).collect::<Result<Vec<_>, _>>()?);
    }
    Ok(found)
}

/// Fails unless all ids are nodes of that kind in the namespace.
pub(crate) async fn require(
    reader: &mut impl Reader,
    namespace: &str,
    kind: Kind,
    id: i64,
    field: &str,
) -> Result<(), DbError> {
    if nodes::read(reader, namespace, kind, By::Ids(&[id]))
        .await?
        .is_empty()
    {
        return Err(Error::new(Code::NotFound, format!("{field}: {} {id} not found", kind.name())).into());
    }
    Ok(())
}
