//! Pipelines and their versions.

use ferroflow_db::{DbError, Row, Tx, params};
use ferroflow_kernel::{Error, Page, Result};
use serde_json::json;

use super::list::{ListQuery, Table};
use super::{PipelineRow, Store, VersionRow, failed};

const PIPELINE: &str = "id, namespace, name, display_name, description, created_at, tags";
const VERSION: &str =
    "id, pipeline_id, name, display_name, description, created_at, code_source_url, package_url, spec, tags";

fn pipeline(row: &Row) -> Result<PipelineRow, DbError> {
    Ok(PipelineRow {
        id: row.text(0)?,
        namespace: row.text(1)?,
        name: row.text(2)?,
        display_name: row.text(3)?,
        description: row.text(4)?,
        created_at: row.time(5)?,
        tags: row.json(6)?,
    })
}

fn version(row: &Row) -> Result<VersionRow, DbError> {
    Ok(VersionRow {
        id: row.text(0)?,
        pipeline_id: row.text(1)?,
        name: row.text(2)?,
        display_name: row.text(3)?,
        description: row.text(4)?,
        created_at: row.time(5)?,
        code_source_url: row.text(6)?,
        package_url: row.text(7)?,
        spec: row.json(8)?,
        tags: row.json(9)?,
    })
}

async fn insert_pipeline(tx: &mut Tx, row: &PipelineRow) -> Result<u64, DbError> {
    tx.execute(
        "INSERT INTO pipelines (id, namespace, name, display_name, description, created_at, tags) \
         VALUES ($1, $2, $3, $4, $5, $6, $7)",
        params![
            &row.id,
            &row.namespace,
            &row.name,
            &row.display_name,
            &row.description,
            row.created_at,
            json!(row.tags)
        ],
    )
    .await
}

async fn insert_version(tx: &mut Tx, row: &VersionRow) -> Result<u64, DbError> {
    tx.execute(
        "INSERT INTO versions (id, pipeline_id, name, display_name, description, created_at, code_source_url, \
         package_url, spec, tags) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)",
        params![
            &row.id,
            &row.pipeline_id,
            &row.name,
            &row.display_name,
            &row.description,
            row.created_at,
            &row.code_source_url,
            &row.package_url,
            &row.spec,
            json!(row.tags)
        ],
    )
    .await
}

impl Store {
    /// Adds a pipeline, with its first version if given.
    ///
    /// # Errors
    /// `AlreadyExists` if its namespace has one of that name.
    pub async fn create_pipeline(&self, row: &PipelineRow, first: Option<&VersionRow>) -> Result<()> {
        let done = self
            .db
            .retry(|| async {
                let mut tx = self.db.begin().await?;
                insert_pipeline(&mut tx, row).await?;
                if let Some(first) = first {
                    insert_version(&mut tx, first).await?;
                }
                tx.commit().await
            })
            .await;
        match done {
            Err(error) if error.is_conflict() => Err(Error::already_exists("pipeline", &row.name)),
            other => other.map_err(failed),
        }
    }

    /// Adds a version.
    ///
    /// # Errors
    /// `AlreadyExists` if its pipeline has one of that name.
    pub async fn create_version(&self, row: &VersionRow) -> Result<()> {
        let done = self
            .db
            .retry(|| async {
                let mut tx = self.db.begin().await?;
                insert_version(&mut tx, row).await?;
                tx.commit().await
            })
            .await;
        match done {
            Err(error) if error.is_conflict() => Err(Error::already_exists("pipeline version", &row.name)),
            other => other.map_err(failed),
        }
    }

    /// The pipeline of an id.
    ///
    /// # Errors
    /// `NotFound`.
    pub async fn pipeline(&self, id: &str) -> Result<PipelineRow> {
        let sql = format!("SELECT {PIPELINE} FROM pipelines WHERE id = $1");
        let row = self.db.fetch_optional(&sql, params![id]).await.map_err(failed)?;
        row.map(|row| pipeline(&row).map_err(failed))
            .transpose()?
            .ok_or_else(|| Error::not_found("pipeline", id))
    }

    /// The pipeline of a name.
    ///
    /// # Errors
    /// `NotFound`.
    pub async fn pipeline_by_name(&self, namespace: &str, name: &str) -> Result<PipelineRow> {
        let sql = format!("SELECT {PIPELINE} FROM pipelines WHERE namespace = $1 AND name = $2");
        let row = self
            .db
            .fetch_optional(&sql, params![namespace, name])
            .await
            .map_err(failed)?;
        row.map(|row| pipeline(&row).map_err(failed))
            .transpose()?
            .ok_or_else(|| Error::not_found("pipeline", name))
    }

    /// The version of an id; the newest version for an empty id.
    ///
    /// # Errors
    /// `NotFound`.
    pub async fn version(&self, pipeline_id: &str, id: &str) -> Result<VersionRow> {
        let row = if id.is_empty() {
            let sql = format!(
                "SELECT {VERSION} FROM versions WHERE pipeline_id = $1 ORDER BY created_at DESC, id DESC LIMIT 1"
            );
            self.db.fetch_optional(&sql, params![pipeline_id]).await
        } else {
            let sql = format!("SELECT {VERSION} FROM versions WHERE pipeline_id = $1 AND id = $2");
            self.db.fetch_optional(&sql, params![pipeline_id, id]).await
        };
        row.map_err(failed)?
            .map(|row| version(&row).map_err(failed))
            .transpose()?
            .ok_or_else(|| {
                if id.is_empty() {
                    Error::not_found("version of pipeline", pipeline_id)
                } else {
                    Error::not_found("pipeline version", id)
                }
            })
    }

    /// A page of the pipelines of a namespace.
    ///
    /// # Errors
    /// A bad filter, order or token.
    pub async fn list_pipelines(&self, namespace: &str, query: &ListQuery) -> Result<Page<PipelineRow>> {
        let table = Table {
            name: "pipelines",
            columns: PIPELINE,
            fields: &[
                ("id", "id"),
                ("pipeline_id", "id"),
                ("name", "name"),
                ("display_name", "display_name"),
                ("description", "description"),
                ("created_at", "created_at"),
                ("namespace", "namespace"),
                ("tags", "tags"),
            ],
            fixed: vec![("namespace", namespace.to_owned())],
        };
        table.list(&self.db, query, pipeline).await
    }

    /// A page of the versions of a pipeline.
    ///
    /// # Errors
    /// A bad filter, order or token.
    pub async fn list_versions(&self, pipeline_id: &str, query: &ListQuery) -> Result<Page<VersionRow>> {
        let table = Table {
            name: "versions",
            columns: VERSION,
            fields: &[
                ("id", "id"),
                ("pipeline_version_id", "id"),
                ("name", "name"),
                ("display_name", "display_name"),
                ("description", "description"),
                ("created_at", "created_at"),
                ("tags", "tags"),
            ],
            fixed: vec![("pipeline_id", pipeline_id.to_owned())],
        };
        table.list(&self.db, query, version).await
    }

    /// Changes names, description and tags of a pipeline.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn update_pipeline(&self, row: &PipelineRow) -> Result<()> {
        self.change(
            "UPDATE pipelines SET display_name = $1, description = $2, tags = $3 WHERE id = $4",
            params![&row.display_name, &row.description, json!(row.tags), &row.id],
        )
        .await
    }

    /// Changes names, description and tags of a version.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn update_version(&self, row: &VersionRow) -> Result<()> {
        self.change(
            "UPDATE versions SET display_name = $1, description = $2, tags = $3 WHERE id = $4",
            params![&row.display_name, &row.description, json!(row.tags), &row.id],
        )
        .await
    }

    /// Removes a version.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn delete_version(&self, id: &str) -> Result<()> {
        self.change("DELETE FROM versions WHERE id = $1", params![id])
            .await
    }

    /// Removes a pipeline, with its versions if `cascade`.
    ///
    /// # Errors
    /// `FailedPrecondition` if it has versions and `cascade` is not set.
    pub async fn delete_pipeline(&self, id: &str, cascade: bool) -> Result<()> {
        self.db
            .retry(|| async {
                let mut tx = self.db.begin().await?;
                if cascade {
                    tx.execute("DELETE FROM versions WHERE pipeline_id = $1", params![id])
                        .await?;
                }
                let left = tx
                    .fetch_optional(
                        "SELECT COUNT(*) FROM versions WHERE pipeline_id = $1",
                        params![id],
                    )
                    .await?;
                let left = left.map_or(Ok(0), |row| row.int(0))?;
                if left > 0 {
                    return Err(DbError::from(Error::new(
                        ferroflow_kernel::Code::FailedPrecondition,
                        format!("pipeline {id} has {left} versions; delete them first or pass cascade=true"),
                    )));
                }
                tx.execute("DELETE FROM pipelines WHERE id = $1", params![id])
                    .await?;
                tx.commit().await
            })
            .await
            .map_err(failed)
    }

    pub(super) async fn change(&self, sql: &str, values: Vec<ferroflow_db::Value>) -> Result<()> {
        self.db
            .retry(|| async {
                let mut tx = self.db.begin().await?;
                tx.execute(sql, values.clone()).await?;
                tx.commit().await
            })
            .await
            .map_err(failed)
    }
}
