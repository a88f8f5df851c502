//! Lists: filtered, ordered, page by page.

use std::collections::HashMap;

use ferroflow_db::{DbError, Value, params};
use ferroflow_kernel::{Error, PageToken};
use sha2::{Digest, Sha256};

use super::nodes::{self, By};
use super::{Reader, filter_sql};
use crate::domain::filter;
use crate::domain::model::{Kind, Node};

/// What besides the filter a node must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Within {
    /// Any.
    All,
    /// Of this type.
    Type(i64),
    /// In this context.
    Context(i64),
}

/// By what to order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Order {
    Id,
    Created,
    Updated,
}

/// How to list.
#[derive(Debug, Clone)]
pub(crate) struct ListQuery {
    pub within: Within,
    pub filter: String,
    pub order: Order,
    pub ascending: bool,
    /// `None` is all at once.
    pub limit: Option<usize>,
    pub page_token: String,
}

impl ListQuery {
    /// Everything, by id.
    pub(crate) fn all(within: Within) -> Self {
        Self {
            within,
            filter: String::new(),
            order: Order::Id,
            ascending: true,
            limit: None,
            page_token: String::new(),
        }
    }

    /// What a page token belongs to.
    fn digest(&self, kind: Kind) -> String {
        let text = format!(
            "{kind:?} {:?} {:?} {} {}",
            self.within, self.order, self.ascending, self.filter
        );
        hex::encode(&Sha256::digest(text.as_bytes())[..8])
    }
}

/// Nodes and the token of the next page, which is empty at the end.
pub(crate) async fn list(
    reader: &mut impl Reader,
    namespace: &str,
    kind: Kind,
    query: &ListQuery,
) -> Result<(Vec<Node>, String), DbError> {
    let mut params = params![namespace, kind.code()];
    let mut joins = String::new();
    let mut conditions = vec!["n.namespace = $1".to_owned(), "n.kind = $2".to_owned()];
    match query.within {
        Within::All => {}
        Within::Type(id) => {
            params.push(Value::from(id));
            conditions.push(format!("n.type_id = ${}", params.len()));
        }
        Within::Context(id) => {
            params.push(Value::from(id));
            joins.push_str(" JOIN members own ON own.node_id = n.id");
            conditions.push(format!("own.context_id = ${}", params.len()));
        }
    }
    if !query.filter.trim().is_empty() {
        let compiled = filter_sql::compile(&filter::parse(&query.filter)?, kind, params)?;
        params = compiled.params;
        joins.push_str(&compiled.joins);
        conditions.push(compiled.condition);
    }
    let column = match query.order {
        Order::Id => "id",
        Order::Created => "created",
        Order::Updated => "updated",
    };
    let (than, direction) = if query.ascending {
        (">", "ASC")
    } else {
        ("<", "DESC")
    };
    let digest = query.digest(kind);
    if !query.page_token.is_empty() {
        let token = PageToken::decode(&query.page_token, &digest)?;
        let bad = || {
            Error::field(
                "page_token",
                "is not a token of this list; start again without it",
            )
        };
        let after = token.after.as_i64().ok_or_else(bad)?;
        let after_id: i64 = token.after_id.parse().map_err(|_| bad())?;
        params.extend(params![after, after_id]);
        let (a, b) = (params.len() - 1, params.len());
        conditions.push(format!(
            "(n.{column} {than} ${a} OR (n.{column} = ${a} AND n.id {than} ${b}))"
        ));
    }
    let mut sql = format!(
        "SELECT DISTINCT n.id, n.{column} AS sorted FROM nodes n{joins} WHERE {} ORDER BY sorted {direction}, n.id {direction}",
        conditions.join(" AND ")
    );
    if let Some(limit) = query.limit {
        // one more shows whether there is a next page
        sql.push_str(&format!(" LIMIT {}", limit + 1));
    }
    let rows = reader.rows(&sql, params).await?;
    let mut found = rows
        .iter()
        .map(|row| Ok((row.int(0)?, row.int(1)?)))
        .collect::<Result<Vec<_>, DbError>>()?;
    let mut next = String::new();
    if let Some(limit) = query.limit.filter(|limit| found.len() > *limit) {
        found.truncate(limit);
        if let Some((id, sorted)) = found.last() {
            next = PageToken {
                query: digest,
                after: (*sorted).into(),
                after_id: id.to_string(),
            }
            .encode();
        }
    }
    let ids: Vec<i64> = found.into_iter().map(|(id, _)| id).collect();
    let mut by_id: HashMap<i64, Node> = nodes::read(reader, namespace, kind, By::Ids(&ids))
        .await?
        .into_iter()
        .map(|node| (node.id, node))
        .collect();
    Ok((ids.iter().filter_map(|id| by_id.remove(id)).collect(), next))
}
