//! Schema versions. A migration is applied once, in order, in the transaction that records it.

use crate::{Db, DbError, Value};

/// The outbox and inbox that every store has.
const OWN: &str = "
CREATE TABLE IF NOT EXISTS outbox (seq {{identity}}, id TEXT NOT NULL UNIQUE, body TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS inbox (consumer TEXT NOT NULL, event_id TEXT NOT NULL, PRIMARY KEY (consumer, event_id));
";

pub(crate) async fn migrate(db: &Db, name: &str, migrations: &[&str]) -> Result<(), DbError> {
    let known = i64::try_from(migrations.len()).unwrap_or(i64::MAX);
    let steps: Vec<Vec<String>> = migrations.iter().map(|text| db.statements(text)).collect();
    let own = db.statements(OWN);
    db.retry(|| apply(db, name, known, &own, &steps)).await
}

async fn apply(
    db: &Db,
    name: &str,
    known: i64,
    own: &[String],
    steps: &[Vec<String>],
) -> Result<(), DbError> {
    let mut tx = db.begin().await?;
    let versions =
        "CREATE TABLE IF NOT EXISTS schema_version (name TEXT PRIMARY KEY, version BIGINT NOT NULL)";
    tx.execute(versions, vec![]).await?;
    for statement in own {
        tx.execute(statement, vec![]).await?;
    }
    let row = tx
        .fetch_optional(
            "SELECT version FROM schema_version WHERE name = $1",
            vec![Value::from(name)],
        )
        .await?;
    let found = row.map_or(Ok(0), |row| row.int(0))?;
    if found > known {
        return Err(DbError::Newer {
            name: name.to_owned(),
            found,
            known,
        });
    }
    for statement in steps.iter().skip(usize::try_from(found).unwrap_or(0)).flatten() {
        tx.execute(statement, vec![]).await?;
    }
    tx.execute(
        "INSERT INTO schema_version (name, version) VALUES ($1, $2)
         ON CONFLICT (name) DO UPDATE SET version = excluded.version",
        vec![Value::from(name), Value::from(known)],
    )
    .await?;
    tx.commit().await
}
