use jiff::Timestamp;
use sqlx::postgres::PgRow;
use sqlx::sqlite::SqliteRow;
use sqlx::{Row as _, ValueRef as _};

use crate::DbError;

/// One row of an answer; columns are read by position.
#[derive(Debug)]
pub enum Row {
    /// From SQLite.
    Sqlite(SqliteRow),
    /// From PostgreSQL.
    Postgres(PgRow),
}

macro_rules! get {
    ($row:expr, $index:expr, $type:ty) => {
        match $row {
            Row::Sqlite(row) => row.try_get::<$type, _>($index),
            Row::Postgres(row) => row.try_get::<$type, _>($index),
        }
        .map_err(DbError::from)
    };
}

impl Row {
    /// Whether the column is NULL.
    ///
    /// # Errors
    /// If there is no such column.
    pub fn is_null(&self, index: usize) -> Result<bool, DbError> {
        Ok(match self {
            Row::Sqlite(row) => row.try_get_raw(index)?.is_null(),
            Row::Postgres(row) => row.try_get_raw(index)?.is_null(),
        })
    }

    /// An integer.
    ///
    /// # Errors
    /// If the column is NULL or of another type.
    pub fn int(&self, index: usize) -> Result<i64, DbError> {
        get!(self, index, i64)
    }

    /// An integer or NULL.
    ///
    /// # Errors
    /// If the column is of another type.
    pub fn opt_int(&self, index: usize) -> Result<Option<i64>, DbError> {
        get!(self, index, Option<i64>)
    }

    /// A boolean, stored as 0 or 1.
    ///
    /// # Errors
    /// If the column is NULL or of another type.
    pub fn bool(&self, index: usize) -> Result<bool, DbError> {
        Ok(self.int(index)? != 0)
    }

    /// A floating-point number.
    ///
    /// # Errors
    /// If the column is NULL or of another type.
    pub fn real(&self, index: usize) -> Result<f64, DbError> {
        get!(self, index, f64)
    }

    /// A floating-point number or NULL.
    ///
    /// # Errors
    /// If the column is of another type.
    pub fn opt_real(&self, index: usize) -> Result<Option<f64>, DbError> {
        get!(self, index, Option<f64>)
    }

    /// A text.
    ///
    /// # Errors
    /// If the column is NULL or of another type.
    pub fn text(&self, index: usize) -> Result<String, DbError> {
        get!(self, index, String)
    }

    /// A text or NULL.
    ///
    /// # Errors
    /// If the column is of another type.
    pub fn opt_text(&self, index: usize) -> Result<Option<String>, DbError> {
        get!(self, index, Option<String>)
    }

    /// Bytes.
    ///
    /// # Errors
    /// If the column is NULL or of another type.
    pub fn bytes(&self, index: usize) -> Result<Vec<u8>, DbError> {
        get!(self, index, Vec<u8>)
    }

    /// Bytes or NULL.
    ///
    /// # Errors
    /// If the column is of another type.
    pub fn opt_bytes(&self, index: usize) -> Result<Option<Vec<u8>>, DbError> {
        get!(self, index, Option<Vec<u8>>)
    }

    /// An instant, stored as RFC 3339 text.
    ///
    /// # Errors
    /// If the column is NULL or no instant.
    pub fn time(&self, index: usize) -> Result<Timestamp, DbError> {
        parse_time(index, &self.text(index)?)
    }

    /// An instant or NULL.
    ///
    /// # Errors
    /// If the column is no instant.
    pub fn opt_time(&self, index: usize) -> Result<Option<Timestamp>, DbError> {
        self.opt_text(index)?
            .map(|text| parse_time(index, &text))
            .transpose()
    }

    /// JSON, stored as text.
    ///
    /// # Errors
    /// If the column is NULL or does not hold a `T`.
    pub fn json<T: serde::de::DeserializeOwned>(&self, index: usize) -> Result<T, DbError> {
        let text = self.text(index)?;
        serde_json::from_str(&text).map_err(|error| DbError::Column {
            column: index.to_string(),
            expected: std::any::type_name::<T>(),
            found: error.to_string(),
        })
    }
}

fn parse_time(index: usize, text: &str) -> Result<Timestamp, DbError> {
    text.parse().map_err(|_| DbError::Column {
        column: index.to_string(),
        expected: "RFC 3339 time",
        found: text.to_owned(),
    })
}
