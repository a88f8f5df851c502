//! Lists: filters, order and pages over a table, with columns from a fixed set.

use ferroflow_db::{Db, Row, Value, params};
use ferroflow_kernel::{Error, Page, PageToken, Result};
use jiff::Timestamp;

use super::failed;

/// What one condition of a filter compares with.
#[derive(Debug, Clone, PartialEq)]
pub enum PredicateValue {
    /// A text.
    Text(String),
    /// A number.
    Int(i64),
    /// One of these texts.
    Texts(Vec<String>),
}

/// One condition of a filter.
#[derive(Debug, Clone, PartialEq)]
pub struct Predicate {
    /// The field, as the API names it.
    pub key: String,
    /// `EQUALS`, `NOT_EQUALS`, `GREATER_THAN`, ...
    pub operation: String,
    /// What it is compared with.
    pub value: PredicateValue,
}

/// The order of a list.
#[derive(Debug, Clone, PartialEq)]
pub struct Sort {
    /// The field, as the API names it.
    pub key: String,
    /// Whether the largest comes first.
    pub descending: bool,
}

/// A list that somebody asks for.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct ListQuery {
    /// All of these must hold.
    pub predicates: Vec<Predicate>,
    /// The order; by creation when none.
    pub sort: Option<Sort>,
    /// At most so many.
    pub page_size: usize,
    /// Where to go on.
    pub page_token: String,
}

/// A table that can be listed.
pub(super) struct Table {
    /// Its name.
    pub name: &'static str,
    /// What is read.
    pub columns: &'static str,
    /// API field to column.
    pub fields: &'static [(&'static str, &'static str)],
    /// Conditions that always hold: column and text.
    pub fixed: Vec<(&'static str, String)>,
}

impl Table {
    fn column(&self, key: &str) -> Result<&'static str> {
        let found = self.fields.iter().find(|(field, _)| *field == key);
        found.map(|(_, column)| *column).ok_or_else(|| {
            let known: Vec<&str> = self.fields.iter().map(|(field, _)| *field).collect();
            Error::field(
                "filter or sort_by",
                format!("no field {key:?}; known are {}", known.join(", ")),
            )
        })
    }

    /// One page. The first column read must be the id.
    pub async fn list<T>(
        &self,
        db: &Db,
        query: &ListQuery,
        read: impl Fn(&Row) -> Result<T, ferroflow_db::DbError>,
    ) -> Result<Page<T>> {
        let mut conditions = vec!["1 = 1".to_owned()];
        let mut values: Vec<Value> = Vec::new();
        for (column, text) in &self.fixed {
            values.push(text.into());
            conditions.push(format!("{column} = ${}", values.len()));
        }
        for predicate in &query.predicates {
            self.condition(predicate, &mut conditions, &mut values)?;
        }
        let count_sql = format!(
            "SELECT COUNT(*) FROM {} WHERE {}",
            self.name,
            conditions.join(" AND ")
        );
        let count = db
            .fetch_optional(&count_sql, values.clone())
            .await
            .map_err(failed)?;
        let total = count.map_or(Ok(0), |row| row.int(0)).map_err(failed)?;
        let (column, descending) = match &query.sort {
            Some(sort) => (self.column(&sort.key)?, sort.descending),
            None => ("created_at", false),
        };
        let shape = format!("{column} {descending} {:?} {:?}", query.predicates, self.fixed);
        if !query.page_token.is_empty() {
            let token = PageToken::decode(&query.page_token, &shape)?;
            let than = if descending { "<" } else { ">" };
            let after = token.after.as_str().unwrap_or_default().to_owned();
            values.extend(params![after, token.after_id]);
            let (key, id) = (values.len() - 1, values.len());
            conditions.push(format!(
                "({column} {than} ${key} OR ({column} = ${key} AND id {than} ${id}))"
            ));
        }
        let direction = if descending { "DESC" } else { "ASC" };
        let limit = query.page_size.clamp(1, 200);
        let sql = format!(
            "SELECT {}, {column} FROM {} WHERE {} ORDER BY {column} {direction}, id {direction} LIMIT {}",
            self.columns,
            self.name,
            conditions.join(" AND "),
            limit + 1
        );
        let rows = db.fetch_all(&sql, values).await.map_err(failed)?;
        let mut next_page_token = String::new();
        if rows.len() > limit
            && let Some(last) = rows.get(limit - 1)
        {
            let position = self.columns.split(',').count();
            let after = last.opt_text(position).map_err(failed)?.unwrap_or_default();
            let after_id = last.text(0).map_err(failed)?;
            next_page_token = PageToken {
                query: shape,
                after: after.into(),
                after_id,
            }
            .encode();
        }
        let items = rows
            .iter()
            .take(limit)
            .map(read)
            .collect::<Result<_, _>>()
            .map_err(failed)?;
        Ok(Page {
            items,
            next_page_token,
            total_size: Some(total),
        })
    }

    fn condition(
        &self,
        predicate: &Predicate,
        conditions: &mut Vec<String>,
        values: &mut Vec<Value>,
    ) -> Result<()> {
        let Predicate {
            key,
            operation,
            value,
        } = predicate;
        if let Some(tag) = key.strip_prefix("tags.") {
            let (PredicateValue::Text(text), "EQUALS") = (value, operation.as_str()) else {
                return Err(Error::field(
                    "filter",
                    format!("{key}: tags can only be compared by EQUALS with a text"),
                ));
            };
            self.column("tags")?;
            let pair = format!("{}:{}", serde_json::json!(tag), serde_json::json!(text));
            values.push(format!("%{}%", escaped(&pair)).into());
            conditions.push(format!("tags LIKE ${} ESCAPE '!'", values.len()));
            return Ok(());
        }
        let column = self.column(key)?;
        let is_time = column.ends_with("_at");
        let mut text = |value: &str| -> Result<String> {
            values.push(if is_time {
                instant(value)?.into()
            } else {
                value.into()
            });
            Ok(format!("${}", values.len()))
        };
        let operator = match operation.as_str() {
            "EQUALS" => "=",
            "NOT_EQUALS" => "<>",
            "GREATER_THAN" => ">",
            "GREATER_THAN_EQUALS" => ">=",
            "LESS_THAN" => "<",
            "LESS_THAN_EQUALS" => "<=",
            "IN" => {
                let PredicateValue::Texts(all) = value else {
                    return Err(Error::field("filter", format!("{key}: IN needs string_values")));
                };
                if all.is_empty() {
                    conditions.push("1 = 0".to_owned());
                    return Ok(());
                }
                let places = all.iter().map(|v| text(v)).collect::<Result<Vec<_>>>()?;
                conditions.push(format!("{column} IN ({})", places.join(", ")));
                return Ok(());
            }
            "IS_SUBSTRING" => {
                let PredicateValue::Text(part) = value else {
                    return Err(Error::field(
                        "filter",
                        format!("{key}: IS_SUBSTRING needs string_value"),
                    ));
                };
                values.push(format!("%{}%", escaped(part)).into());
                conditions.push(format!("{column} LIKE ${} ESCAPE '!'", values.len()));
                return Ok(());
            }
            other => return Err(Error::field("filter", format!("unknown operation {other:?}"))),
        };
        let place = match value {
            PredicateValue::Text(value) => text(value)?,
            PredicateValue::Int(value) => text(&value.to_string())?,
            PredicateValue::Texts(_) => {
                return Err(Error::field(
                    "filter",
                    format!("{key}: {operation} needs one value; use IN for several"),
                ));
            }
        };
        conditions.push(format!("{column} {operator} {place}"));
        Ok(())
    }
}

/// A time in a filter: RFC 3339, or seconds since 1970.
fn instant(text: &str) -> Result<Timestamp> {
    let parsed = text.parse::<Timestamp>().ok();
    let seconds = || {
        text.parse::<i64>()
            .ok()
            .and_then(|s| Timestamp::from_second(s).ok())
    };
    parsed.or_else(seconds).ok_or_else(|| {
        Error::field(
            "filter",
            format!("{text:?} is no time; write 2026-01-02T03:04:05Z or seconds since 1970"),
        )
    })
}

fn escaped(text: &str) -> String {
    text.replace('!', "!!").replace('%', "!%").replace('_', "!_")
}
