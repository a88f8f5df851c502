//! Filters, order and pages as the SDK sends them.

use ferroflow_kernel::{Error, Result};
use serde_json::Value;

use super::Params;
use crate::store::{ListQuery, Predicate, PredicateValue, Sort};

/// Operations by the number that older SDKs send.
const OPERATIONS: [(i64, &str); 8] = [
    (1, "EQUALS"),
    (2, "NOT_EQUALS"),
    (3, "GREATER_THAN"),
    (5, "GREATER_THAN_EQUALS"),
    (6, "LESS_THAN"),
    (7, "LESS_THAN_EQUALS"),
    (8, "IN"),
    (9, "IS_SUBSTRING"),
];

/// Reads what a list request asks for.
pub fn list_query(params: &Params) -> Result<ListQuery> {
    let text = |key: &str| params.get(key).map(|value| value.trim()).unwrap_or_default();
    let page_size = match text("page_size") {
        "" => 20,
        number => match number.parse::<i64>() {
            Ok(0) => 20,
            Ok(size) if size > 0 => usize::try_from(size.min(200)).unwrap_or(200),
            _ => {
                return Err(Error::field(
                    "page_size",
                    format!("{number:?} is no positive number"),
                ));
            }
        },
    };
    Ok(ListQuery {
        predicates: filter(text("filter"))?,
        sort: sort(text("sort_by"))?,
        page_size,
        page_token: text("page_token").to_owned(),
    })
}

fn sort(text: &str) -> Result<Option<Sort>> {
    let mut words = text.split_whitespace();
    let Some(key) = words.next() else {
        return Ok(None);
    };
    let descending = match words.next().map(str::to_ascii_lowercase).as_deref() {
        None | Some("asc") => false,
        Some("desc") => true,
        Some(other) => {
            return Err(Error::field(
                "sort_by",
                format!("{other:?} is no direction; write \"{key} asc\" or \"{key} desc\""),
            ));
        }
    };
    if let Some(metric) = key.strip_prefix("metric:") {
        return Err(Error::unimplemented(format!(
            "sort_by: order by the metric {metric:?}"
        )));
    }
    Ok(Some(Sort {
        key: key.to_owned(),
        descending,
    }))
}

fn filter(text: &str) -> Result<Vec<Predicate>> {
    if text.is_empty() {
        return Ok(Vec::new());
    }
    let parsed = serde_json::from_str::<Value>(text).ok().or_else(|| {
        // The SDK encodes a filter once more than HTTP does.
        let decoded = percent_encoding::percent_decode_str(text).decode_utf8().ok()?;
        serde_json::from_str(&decoded).ok()
    });
    let Some(parsed) = parsed else {
        return Err(Error::field(
            "filter",
            format!("{text:?} is no JSON; write {{\"predicates\": [...]}}"),
        ));
    };
    let predicates = parsed
        .get("predicates")
        .and_then(Value::as_array)
        .cloned()
        .unwrap_or_default();
    predicates.iter().map(predicate).collect()
}

fn predicate(value: &Value) -> Result<Predicate> {
    let either = |snake: &str, camel: &str| {
        value
            .get(snake)
            .or_else(|| value.get(camel))
            .filter(|v| !v.is_null())
    };
    let operation = match value.get("operation").or_else(|| value.get("op")) {
        Some(Value::String(name)) => name.clone(),
        Some(Value::Number(number)) => OPERATIONS
            .iter()
            .find(|(code, _)| Some(*code) == number.as_i64())
            .map(|(_, name)| (*name).to_owned())
            .ok_or_else(|| Error::field("filter", format!("unknown operation {number}")))?,
        _ => {
            return Err(Error::field(
                "filter",
                "a predicate has no operation; write for example \"EQUALS\"",
            ));
        }
    };
    let key = value
        .get("key")
        .and_then(Value::as_str)
        .unwrap_or_default()
        .to_owned();
    if key.is_empty() {
        return Err(Error::field("filter", "a predicate has no key"));
    }
    let number = |value: &Value| value.as_i64().or_else(|| value.as_str()?.parse().ok());
    let found = if let Some(text) = either("string_value", "stringValue").and_then(Value::as_str) {
        PredicateValue::Text(text.to_owned())
    } else if let Some(time) = either("timestamp_value", "timestampValue").and_then(Value::as_str) {
        PredicateValue::Text(time.to_owned())
    } else if let Some(int) = either("int_value", "intValue").or_else(|| either("long_value", "longValue")) {
        PredicateValue::Int(
            number(int).ok_or_else(|| Error::field("filter", format!("{int} is no integer")))?,
        )
    } else if let Some(list) = [
        "string_values",
        "stringValues",
        "int_values",
        "intValues",
        "long_values",
        "longValues",
    ]
    .iter()
    .find_map(|key| value.get(*key))
    {
        let values = list
            .get("values")
            .and_then(Value::as_array)
            .cloned()
            .unwrap_or_default();
        PredicateValue::Texts(
            values
                .iter()
                .map(|v| v.as_str().map_or_else(|| v.to_string(), str::to_owned))
                .collect(),
        )
    } else {
        return Err(Error::field(
            "filter",
            format!("the predicate on {key:?} has no value; set string_value"),
        ));
    };
    Ok(Predicate {
        key,
        operation,
        value: found,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(filter: &str) -> Result<ListQuery> {
        list_query(&Params::from([
            ("filter".to_owned(), filter.to_owned()),
            ("sort_by".to_owned(), "created_at desc".to_owned()),
        ]))
    }

    #[test]
    fn filters_come_in_every_spelling() {
        let want = Predicate {
            key: "display_name".into(),
            operation: "EQUALS".into(),
            value: PredicateValue::Text("a b".into()),
        };
        for text in [
            r#"{"predicates":[{"operation":1,"key":"display_name","stringValue":"a b"}]}"#,
            r#"{"predicates":[{"operation":"EQUALS","key":"display_name","string_value":"a b"}]}"#,
            "%7B%22predicates%22%3A%20%5B%7B%22operation%22%3A%201%2C%20%22key%22%3A%20%22display_name%22%2C%20%22stringValue%22%3A%20%22a%20b%22%7D%5D%7D",
        ] {
            let query = read(text).unwrap();
            assert_eq!(query.predicates, std::slice::from_ref(&want), "{text}");
            assert!(query.sort.unwrap().descending);
        }
        assert!(read("{").unwrap_err().to_string().contains("is no JSON"));
        assert!(read(r#"{"predicates":[{"operation":4,"key":"a","stringValue":"b"}]}"#).is_err());
    }
}
