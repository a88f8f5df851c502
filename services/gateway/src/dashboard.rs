//! The dashboard's files, embedded in the program.

use axum::response::{IntoResponse, Response};
use http::{StatusCode, header};
use rust_embed::RustEmbed;

#[derive(RustEmbed)]
#[folder = "../dashboard/dist/"]
struct Files;

/// The file at `path`, or the single page for every path that is a page of it.
pub(crate) fn file(path: &str) -> Response {
    let name = path.trim_start_matches('/');
    let (name, found) = match Files::get(name) {
        Some(found) if !name.is_empty() => (name, Some(found)),
        _ if name.starts_with("assets/") => (name, None),
        _ => ("index.html", Files::get("index.html")),
    };
    let Some(found) = found else {
        let text = if name == "index.html" {
            "this ferroflow was built without its dashboard; build it with cargo xtask build"
        } else {
            "no such file"
        };
        return (StatusCode::NOT_FOUND, text).into_response();
    };
    let kind = found.metadata.mimetype().to_owned();
    let cache = if name.starts_with("assets/") {
        "public, max-age=31536000, immutable"
    } else {
        "no-cache"
    };
    let policy = "default-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; connect-src 'self'; \
                  frame-src 'self'; object-src 'none'; base-uri 'none'; frame-ancestors 'none'";
    let headers = [
        (header::CONTENT_TYPE, kind.as_str()),
        (header::CACHE_CONTROL, cache),
        (header::CONTENT_SECURITY_POLICY, policy),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "same-origin"),
    ];
    (headers, found.data.into_owned()).into_response()
}
