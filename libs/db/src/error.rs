use ferroflow_kernel::{Code, Error};

/// What can go wrong with rows.
#[derive(Debug, thiserror::Error)]
pub enum DbError {
    /// The engine refused or failed.
    #[error("database: {0}")]
    Engine(#[from] sqlx::Error),
    /// A value in a column is not of the type that was asked for.
    #[error("column {column}: expected {expected}, found {found}")]
    Column {
        /// Index or name of the column.
        column: String,
        /// Type that was asked for.
        expected: &'static str,
        /// What is there.
        found: String,
    },
    /// The database was written by a newer Ferroflow.
    #[error(
        "database {name} has schema version {found}, newer than {known} of this ferroflow; use a newer ferroflow or another data folder"
    )]
    Newer {
        /// Name of the store.
        name: String,
        /// Version in the database.
        found: i64,
        /// Newest version that this build knows.
        known: i64,
    },
    /// The URL is not one of a database.
    #[error(
        "database url {url:?}: {reason}; use sqlite:///path/file.db or postgres://user:password@host/database"
    )]
    Url {
        /// As given, without its password.
        url: String,
        /// What is wrong.
        reason: String,
    },
    /// An error of the caller's own, which rolls the transaction back.
    #[error(transparent)]
    Domain(#[from] Error),
}

impl DbError {
    /// Whether a unique or foreign key was violated: somebody else has that key.
    pub fn is_conflict(&self) -> bool {
        matches!(self, DbError::Engine(sqlx::Error::Database(e)) if e.is_unique_violation())
    }

    /// Whether the same transaction may go through when it is run again.
    pub(crate) fn is_transient(&self) -> bool {
        let DbError::Engine(sqlx::Error::Database(e)) = self else {
            return false;
        };
        // PostgreSQL: serialization failure, deadlock. SQLite: busy, locked and their extended codes.
        matches!(
            e.code().as_deref(),
            Some("40001" | "40P01" | "5" | "6" | "261" | "517" | "262")
        )
    }
}

impl From<DbError> for Error {
    fn from(error: DbError) -> Self {
        match error {
            DbError::Domain(error) => error,
            e if e.is_transient() => Error::new(Code::Aborted, "the rows changed meanwhile; try again"),
            e => Error::internal(e),
        }
    }
}
