//! Rows of the lineage graph. Every row has a namespace, and every statement names it.

pub(crate) mod filter_sql;
pub(crate) mod lineage;
pub(crate) mod links;
pub(crate) mod list;
pub(crate) mod nodes;
pub(crate) mod types;

use std::future::Future;

use ferroflow_db::{Db, DbError, Row, Tx, Value};

/// The store's migrations, in order.
pub const MIGRATIONS: &[&str] = &["
CREATE TABLE types (id {{identity}}, namespace TEXT NOT NULL, kind BIGINT NOT NULL, name TEXT NOT NULL,
  version TEXT NOT NULL, description TEXT, external_id TEXT, base_type BIGINT, input_type {{bytes}},
  output_type {{bytes}}, UNIQUE (namespace, kind, name, version), UNIQUE (namespace, kind, external_id));
CREATE TABLE type_properties (type_id BIGINT NOT NULL REFERENCES types (id), name TEXT NOT NULL,
  data_type BIGINT NOT NULL, PRIMARY KEY (type_id, name));
CREATE TABLE nodes (id {{identity}}, namespace TEXT NOT NULL, kind BIGINT NOT NULL,
  type_id BIGINT NOT NULL REFERENCES types (id), name TEXT, external_id TEXT, uri TEXT, state BIGINT,
  created BIGINT NOT NULL, updated BIGINT NOT NULL, system_metadata {{bytes}},
  UNIQUE (namespace, kind, type_id, name), UNIQUE (namespace, kind, external_id));
CREATE INDEX nodes_created ON nodes (namespace, kind, created, id);
CREATE INDEX nodes_updated ON nodes (namespace, kind, updated, id);
CREATE INDEX nodes_uri ON nodes (namespace, uri);
CREATE TABLE properties (node_id BIGINT NOT NULL REFERENCES nodes (id), custom BIGINT NOT NULL, name TEXT NOT NULL,
  int_value BIGINT, double_value DOUBLE PRECISION, string_value TEXT, bool_value BIGINT, bytes_value {{bytes}},
  data_type BIGINT NOT NULL, PRIMARY KEY (node_id, custom, name));
CREATE TABLE events (id {{identity}}, namespace TEXT NOT NULL, artifact_id BIGINT NOT NULL REFERENCES nodes (id),
  execution_id BIGINT NOT NULL REFERENCES nodes (id), type BIGINT NOT NULL, made BIGINT NOT NULL, path {{bytes}},
  UNIQUE (artifact_id, execution_id, type));
CREATE INDEX events_execution ON events (execution_id);
CREATE TABLE members (context_id BIGINT NOT NULL REFERENCES nodes (id), node_id BIGINT NOT NULL REFERENCES nodes (id),
  PRIMARY KEY (context_id, node_id));
CREATE INDEX members_node ON members (node_id);
CREATE TABLE parents (child_id BIGINT NOT NULL REFERENCES nodes (id), parent_id BIGINT NOT NULL REFERENCES nodes (id),
  PRIMARY KEY (child_id, parent_id));
CREATE INDEX parents_parent ON parents (parent_id);
"];

/// Most values in one `IN (...)`.
const BATCH: usize = 400;

/// Where rows are read: a reader connection, or the transaction that is writing.
pub(crate) trait Reader: Send {
    /// All rows of a query.
    fn rows(
        &mut self,
        sql: &str,
        params: Vec<Value>,
    ) -> impl Future<Output = Result<Vec<Row>, DbError>> + Send;
}

impl Reader for Db {
    async fn rows(&mut self, sql: &str, params: Vec<Value>) -> Result<Vec<Row>, DbError> {
        self.fetch_all(sql, params).await
    }
}

impl Reader for Tx {
    async fn rows(&mut self, sql: &str, params: Vec<Value>) -> Result<Vec<Row>, DbError> {
        self.fetch_all(sql, params).await
    }
}

/// `$first, $first+1, ...` for `count` values.
fn marks(first: usize, count: usize) -> String {
    let marks: Vec<String> = (first..first + count).map(|n| format!("${n}")).collect();
    marks.join(", ")
}
