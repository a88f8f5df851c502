//! Paging: an opaque token that remembers where a list stopped and what it was a list of.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// One page of a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page<T> {
    /// The items, in the order asked for.
    pub items: Vec<T>,
    /// Token of the next page; empty on the last one.
    pub next_page_token: String,
    /// How many items match in all, where the protocol tells it.
    pub total_size: Option<i64>,
}

/// Where a list goes on. Clients see it as opaque text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PageToken {
    /// Digest or text of filter and order; a token is good only for the query that made it.
    pub query: String,
    /// Sort key of the last item given out.
    pub after: serde_json::Value,
    /// Id of the last item given out, which breaks ties of the key.
    pub after_id: String,
}

impl PageToken {
    /// The text for the client.
    pub fn encode(&self) -> String {
        URL_SAFE_NO_PAD.encode(serde_json::to_vec(self).unwrap_or_default())
    }

    /// Reads a client's text and checks that it belongs to `query`.
    ///
    /// # Errors
    /// `InvalidArgument` if the text is not a token or belongs to another query.
    pub fn decode(text: &str, query: &str) -> Result<Self> {
        let bad = || {
            Error::field(
                "page_token",
                format!("{text:?} is not a token of this list; start again without it"),
            )
        };
        let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| bad())?;
        let token: Self = serde_json::from_slice(&bytes).map_err(|_| bad())?;
        if token.query != query {
            return Err(Error::field(
                "page_token",
                "was made by a list with another filter or order; start again without it",
            ));
        }
        Ok(token)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_good_only_for_its_own_query() {
        let token = PageToken {
            query: "q".into(),
            after: serde_json::json!(7),
            after_id: "x".into(),
        };
        assert_eq!(PageToken::decode(&token.encode(), "q").unwrap(), token);
        assert!(PageToken::decode(&token.encode(), "other").is_err());
        assert!(PageToken::decode("???", "q").is_err());
    }
}
