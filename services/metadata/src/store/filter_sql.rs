//! A filter as SQL: one `WHERE` over the node `n`, and the joins that it needs. Texts of the query become parameters; only
//! words of a fixed vocabulary become SQL.

use std::collections::HashMap;

use ferroflow_db::{DbError, Value};
use ferroflow_kernel::Error;

use crate::domain::filter::{Expr, Literal, Op, Operand};
use crate::domain::model::Kind;

/// What a column holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Holds {
    Int,
    Real,
    Text,
    Bool,
    /// A number with names.
    Names(&'static [&'static str]),
}

const ARTIFACT_STATES: &[&str] = &[
    "UNKNOWN",
    "PENDING",
    "LIVE",
    "MARKED_FOR_DELETION",
    "DELETED",
    "ABANDONED",
    "REFERENCE",
];
const EXECUTION_STATES: &[&str] = &[
    "UNKNOWN", "NEW", "RUNNING", "COMPLETE", "FAILED", "CACHED", "CANCELED",
];
const EVENT_TYPES: &[&str] = &[
    "UNKNOWN",
    "DECLARED_OUTPUT",
    "DECLARED_INPUT",
    "INPUT",
    "OUTPUT",
    "INTERNAL_INPUT",
    "INTERNAL_OUTPUT",
    "PENDING_OUTPUT",
];

/// Name of an artifact's or execution's state.
pub(crate) fn state_name(kind: Kind, state: i32) -> &'static str {
    let names = if kind == Kind::Execution {
        EXECUTION_STATES
    } else {
        ARTIFACT_STATES
    };
    usize::try_from(state)
        .ok()
        .and_then(|state| names.get(state))
        .copied()
        .unwrap_or("UNKNOWN")
}

struct Column {
    sql: String,
    holds: Holds,
}

/// Joins, condition and parameters of a filter.
pub(crate) struct Compiled {
    pub joins: String,
    pub condition: String,
    pub params: Vec<Value>,
}

/// Compiles a filter over nodes of `kind`, whose table is `n`. `params` are those that come before.
pub(crate) fn compile(expr: &Expr, kind: Kind, params: Vec<Value>) -> Result<Compiled, DbError> {
    let mut compiler = Compiler {
        kind,
        params,
        joins: String::new(),
        known: HashMap::new(),
    };
    let condition = compiler.expr(expr)?;
    Ok(Compiled {
        joins: compiler.joins,
        condition,
        params: compiler.params,
    })
}

struct Compiler {
    kind: Kind,
    params: Vec<Value>,
    joins: String,
    /// Joined tables by what they were joined for.
    known: HashMap<String, String>,
}

fn bad(text: String) -> Error {
    Error::field("filter_query", text)
}

impl Compiler {
    fn param(&mut self, value: Value) -> String {
        self.params.push(value);
        format!("${}", self.params.len())
    }

    fn expr(&mut self, expr: &Expr) -> Result<String, Error> {
        let many = |this: &mut Self, all: &[Expr], word: &str| {
            let parts = all
                .iter()
                .map(|expr| this.expr(expr))
                .collect::<Result<Vec<_>, _>>()?;
            Ok(format!("({})", parts.join(word)))
        };
        match expr {
            Expr::And(all) => many(self, all, " AND "),
            Expr::Or(all) => many(self, all, " OR "),
            Expr::Not(inner) => Ok(format!("(NOT {})", self.expr(inner)?)),
            Expr::Compare(left, op, right) => self.compare(left, *op, right),
            Expr::IsNull(operand, negated) => {
                let column = self.field(operand)?;
                Ok(format!(
                    "({} IS {}NULL)",
                    column.sql,
                    if *negated { "NOT " } else { "" }
                ))
            }
            Expr::Like(operand, pattern, negated) => {
                let column = self.field(operand)?;
                if column.holds != Holds::Text {
                    return Err(bad("LIKE needs a text on its left".to_owned()));
                }
                let pattern = self.param(Value::from(pattern.to_lowercase()));
                let not = if *negated { "NOT " } else { "" };
                // the engines differ in case, so both sides are lowered; the escape is the same on both
                Ok(format!("(LOWER({}) {not}LIKE {pattern} ESCAPE '\\')", column.sql))
            }
            Expr::In(operand, all, negated) => {
                let column = self.field(operand)?;
                let mut marks = Vec::new();
                for literal in all {
                    let value = constant(column.holds, literal)?;
                    marks.push(self.param(value));
                }
                let not = if *negated { "NOT " } else { "" };
                Ok(format!("({} {not}IN ({}))", column.sql, marks.join(", ")))
            }
        }
    }

    fn compare(&mut self, left: &Operand, op: Op, right: &Operand) -> Result<String, Error> {
        let side = |this: &mut Self, operand: &Operand, other: &Operand| match operand {
            Operand::Literal(_) => Ok(None),
            // a bare word beside a column that has names is one of them
            Operand::Field(path) if path.len() == 1 && !this.is_attribute(&path[0]) => {
                if matches!(other, Operand::Field(_)) {
                    Ok(None)
                } else {
                    this.field(operand).map(Some)
                }
            }
            Operand::Field(_) => this.field(operand).map(Some),
        };
        let (first, second) = (side(self, left, right)?, side(self, right, left)?);
        let sql = match (first, second) {
            (Some(first), Some(second)) => {
                let numbers = |holds| matches!(holds, Holds::Int | Holds::Real);
                if first.holds != second.holds && !(numbers(first.holds) && numbers(second.holds)) {
                    return Err(bad("two fields of different types are compared".to_owned()));
                }
                format!("({} {} {})", first.sql, op.sql(), second.sql)
            }
            (Some(first), None) => {
                let value = constant(first.holds, &literal(right))?;
                format!("({} {} {})", first.sql, op.sql(), self.param(value))
            }
            (None, Some(second)) => {
                let value = constant(second.holds, &literal(left))?;
                format!("({} {} {})", self.param(value), op.sql(), second.sql)
            }
            (None, None) => return Err(bad("a comparison has no field of a node".to_owned())),
        };
        Ok(sql)
    }

    fn is_attribute(&self, name: &str) -> bool {
        let common = [
            "id",
            "type_id",
            "type",
            "name",
            "external_id",
            "create_time_since_epoch",
            "last_update_time_since_epoch",
        ];
        common.contains(&name)
            || (self.kind == Kind::Artifact && matches!(name, "uri" | "state"))
            || (self.kind == Kind::Execution && name == "last_known_state")
    }

    fn field(&mut self, operand: &Operand) -> Result<Column, Error> {
        let Operand::Field(path) = operand else {
            return Err(bad(
                "a constant stands where a field of a node is needed".to_owned()
            ));
        };
        let path: Vec<&str> = path.iter().map(String::as_str).collect();
        let kind = self.kind.name();
        let unknown = || {
            let text = "use an attribute, properties.<name>.<type>_value, custom_properties.<name>.<type>_value, or a neighbour";
            bad(format!(
                "{:?} is not a field of a node of kind {kind}; {text} such as contexts_a.name",
                path.join(".")
            ))
        };
        match path.as_slice() {
            [attribute] => self.attribute("n", self.kind, attribute).ok_or_else(unknown),
            ["properties" | "custom_properties", name, value] => self
                .property("n", path[0] == "custom_properties", name, value)
                .ok_or_else(unknown),
            [neighbour, "properties" | "custom_properties", name, value] => {
                let (table, kind) = self.neighbour(neighbour).ok_or_else(unknown)?;
                if kind.is_none() {
                    return Err(unknown());
                }
                self.property(&table, path[1] == "custom_properties", name, value)
                    .ok_or_else(unknown)
            }
            [neighbour, attribute] => {
                let (table, kind) = self.neighbour(neighbour).ok_or_else(unknown)?;
                match kind {
                    Some(kind) => self.attribute(&table, kind, attribute),
                    None => event_attribute(&table, attribute),
                }
                .ok_or_else(unknown)
            }
            _ => Err(unknown()),
        }
    }

    fn join(&mut self, what: &str, make: impl FnOnce(&mut Self, &str) -> String) -> String {
        if let Some(known) = self.known.get(what) {
            return known.clone();
        }
        let table = format!("j{}", self.known.len());
        self.known.insert(what.to_owned(), table.clone());
        let sql = make(self, &table);
        self.joins.push_str(&sql);
        table
    }

    fn attribute(&mut self, table: &str, kind: Kind, name: &str) -> Option<Column> {
        let plain = |column: &str, holds| {
            Some(Column {
                sql: format!("{table}.{column}"),
                holds,
            })
        };
        match (name, kind) {
            ("id", _) => plain("id", Holds::Int),
            ("type_id", _) => plain("type_id", Holds::Int),
            ("name", _) => plain("name", Holds::Text),
            ("external_id", _) => plain("external_id", Holds::Text),
            ("create_time_since_epoch", _) => plain("created", Holds::Int),
            ("last_update_time_since_epoch", _) => plain("updated", Holds::Int),
            ("uri", Kind::Artifact) => plain("uri", Holds::Text),
            ("state", Kind::Artifact) => plain("state", Holds::Names(ARTIFACT_STATES)),
            ("last_known_state", Kind::Execution) => plain("state", Holds::Names(EXECUTION_STATES)),
            ("type", _) => {
                let types = self.join(&format!("type of {table}"), |_, join| {
                    format!(" LEFT JOIN types {join} ON {join}.id = {table}.type_id")
                });
                Some(Column {
                    sql: format!("{types}.name"),
                    holds: Holds::Text,
                })
            }
            _ => None,
        }
    }

    fn property(&mut self, table: &str, custom: bool, name: &str, value: &str) -> Option<Column> {
        let (column, holds) = match value {
            "int_value" => ("int_value", Holds::Int),
            "double_value" => ("double_value", Holds::Real),
            "string_value" => ("string_value", Holds::Text),
            "bool_value" => ("bool_value", Holds::Bool),
            _ => return None,
        };
        let joined = self.join(&format!("{custom} {table} {name}"), |this, join| {
            let name = this.param(Value::from(name));
            let custom = i64::from(custom);
            format!(
                " LEFT JOIN properties {join} ON {join}.node_id = {table}.id AND {join}.custom = {custom} AND {join}.name = {name}"
            )
        });
        Some(Column {
            sql: format!("{joined}.{column}"),
            holds,
        })
    }

    /// The table of a neighbour, and what kind of node it is; `None` for events. Each distinct name is a join of its own.
    fn neighbour(&mut self, name: &str) -> Option<(String, Option<Kind>)> {
        // the alias may hold underscores itself
        let known = [
            "parent_contexts",
            "child_contexts",
            "contexts",
            "artifacts",
            "executions",
            "events",
        ];
        let base = known.into_iter().find(|known| {
            name.strip_prefix(known)
                .is_some_and(|alias| alias.len() > 1 && alias.starts_with('_'))
        })?;
        let node = |via: String, kind: Kind| {
            move |_: &mut Self, join: &str| {
                via.replace("{j}", join) + &format!(" AND {join}.kind = {}", kind.code())
            }
        };
        let members = |from: &str, to: &str| {
            format!(
                " LEFT JOIN members {{j}}m ON {{j}}m.{from} = n.id LEFT JOIN nodes {{j}} ON {{j}}.id = {{j}}m.{to}"
            )
        };
        let parents = |from: &str, to: &str| {
            format!(
                " LEFT JOIN parents {{j}}m ON {{j}}m.{from} = n.id LEFT JOIN nodes {{j}} ON {{j}}.id = {{j}}m.{to}"
            )
        };
        let (via, kind) = match (base, self.kind) {
            ("contexts", Kind::Artifact | Kind::Execution) => {
                (members("node_id", "context_id"), Kind::Context)
            }
            ("artifacts", Kind::Context) => (members("context_id", "node_id"), Kind::Artifact),
            ("executions", Kind::Context) => (members("context_id", "node_id"), Kind::Execution),
            ("parent_contexts", Kind::Context) => (parents("child_id", "parent_id"), Kind::Context),
            ("child_contexts", Kind::Context) => (parents("parent_id", "child_id"), Kind::Context),
            ("events", Kind::Artifact | Kind::Execution) => {
                let column = if self.kind == Kind::Artifact {
                    "artifact_id"
                } else {
                    "execution_id"
                };
                let table = self.join(name, |_, join| {
                    format!(" LEFT JOIN events {join} ON {join}.{column} = n.id")
                });
                return Some((table, None));
            }
            _ => return None,
        };
        Some((self.join(name, node(via, kind)), Some(kind)))
    }
}

fn event_attribute(table: &str, name: &str) -> Option<Column> {
    let (column, holds) = match name {
        "artifact_id" => ("artifact_id", Holds::Int),
        "execution_id" => ("execution_id", Holds::Int),
        "type" => ("type", Holds::Names(EVENT_TYPES)),
        "milliseconds_since_epoch" => ("made", Holds::Int),
        _ => return None,
    };
    Some(Column {
        sql: format!("{table}.{column}"),
        holds,
    })
}

fn literal(operand: &Operand) -> Literal {
    match operand {
        Operand::Literal(literal) => literal.clone(),
        Operand::Field(path) => Literal::Word(path.join(".")),
    }
}

/// A constant as a parameter for a column; a constant of another type is an error on SQLite too.
fn constant(holds: Holds, literal: &Literal) -> Result<Value, Error> {
    let wrong = || {
        let wanted = match holds {
            Holds::Int => "a whole number",
            Holds::Real => "a number",
            Holds::Text => "a quoted text",
            Holds::Bool => "true or false",
            Holds::Names(names) => return bad(format!("{literal:?} is none of {}", names.join(", "))),
        };
        bad(format!("{literal:?} stands where {wanted} is needed"))
    };
    Ok(match (holds, literal) {
        (Holds::Int | Holds::Names(_), Literal::Int(number)) => Value::from(*number),
        (Holds::Real, Literal::Real(number)) => Value::from(*number),
        (Holds::Real, Literal::Int(number)) => {
            #[expect(clippy::cast_precision_loss, reason = "the column is a double")]
            let number = *number as f64;
            Value::from(number)
        }
        (Holds::Text, Literal::Text(text)) => Value::from(text),
        (Holds::Bool, Literal::Bool(bool)) => Value::from(*bool),
        (Holds::Names(names), Literal::Word(word) | Literal::Text(word)) => {
            let at = names.iter().position(|name| name == word).ok_or_else(wrong)?;
            Value::from(i64::try_from(at).map_err(Error::internal)?)
        }
        _ => return Err(wrong()),
    })
}
