//! Uploads of packages: YAML, JSON, zip and tar.gz, at most 32 MiB.

use std::io::Read as _;

use axum::extract::{Multipart, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use ferroflow_auth::Caller;
use ferroflow_kernel::{Code, Error, Result};
use serde_json::{Value, json};

use super::pipelines::{PipelineRequest, VersionRequest};
use super::{Api, Params, Queried, json as shape};
use crate::domain::package::Package;

/// A package, packed or not, is at most so large.
const MAX_PACKAGE: u64 = 32 * 1024 * 1024;

pub(super) async fn pipeline(
    State(api): State<Api>,
    caller: Caller,
    params: Queried,
    form: Multipart,
) -> Response {
    let done = async {
        let (file, spec) = package(form).await?;
        let tags = tags(&params)?;
        let text = |key: &str| params.get(key).filter(|v| !v.is_empty()).cloned();
        let request = PipelineRequest {
            name: text("name").unwrap_or_default(),
            display_name: text("display_name").unwrap_or_default(),
            description: text("description"),
            namespace: text("namespace"),
            tags: tags.clone(),
            ..PipelineRequest::default()
        };
        let row = api.new_pipeline(&caller, request, &file).await?;
        let version = VersionRequest {
            pipeline_spec: Some(spec),
            code_source_url: text("code_source_url"),
            description: text("description"),
            tags,
            ..VersionRequest::default()
        };
        let version = api.new_version(&row, version)?;
        api.store.create_pipeline(&row, Some(&version)).await?;
        Ok(shape::pipeline(&row))
    };
    upload_answer(done.await)
}

pub(super) async fn version(
    State(api): State<Api>,
    caller: Caller,
    params: Queried,
    form: Multipart,
) -> Response {
    let done = async {
        let (file, spec) = package(form).await?;
        let text = |key: &str| params.get(key).filter(|v| !v.is_empty()).cloned();
        let Some(id) = text("pipelineid") else {
            return Err(Error::field(
                "pipelineid",
                "is missing; say which pipeline the version belongs to",
            ));
        };
        let row = api.pipeline(&caller, &id, "update").await?;
        let name = text("name").or_else(|| text("display_name")).unwrap_or(file);
        let version = VersionRequest {
            name,
            display_name: text("display_name").unwrap_or_default(),
            pipeline_spec: Some(spec),
            code_source_url: text("code_source_url"),
            description: text("description"),
            tags: tags(&params)?,
            ..VersionRequest::default()
        };
        let version = api.new_version(&row, version)?;
        api.store.create_version(&version).await?;
        Ok(shape::version(&version))
    };
    upload_answer(done.await)
}

/// Upload endpoints have an error shape of their own.
fn upload_answer(result: Result<Value>) -> Response {
    match result {
        Ok(value) => axum::Json(value).into_response(),
        Err(error) => {
            let status = match error.code() {
                Code::AlreadyExists => StatusCode::CONFLICT,
                code => code.http_status(),
            };
            let body = json!({"error_message": error.message(), "error_details": error.message()});
            (status, axum::Json(body)).into_response()
        }
    }
}

fn tags(params: &Params) -> Result<Option<std::collections::BTreeMap<String, String>>> {
    let Some(text) = params.get("tags").filter(|text| !text.is_empty()) else {
        return Ok(None);
    };
    serde_json::from_str(text).map(Some).map_err(|_| {
        Error::field(
            "tags",
            format!("{text:?} is no JSON object of texts; write {{\"team\": \"a\"}}"),
        )
    })
}

/// Name of the uploaded file without its ending, and the pipeline in it.
async fn package(mut form: Multipart) -> Result<(String, Value)> {
    let broken =
        |error: axum::extract::multipart::MultipartError| Error::invalid(format!("uploadfile: {error}"));
    while let Some(field) = form.next_field().await.map_err(broken)? {
        if field.name() != Some("uploadfile") {
            continue;
        }
        let name = field.file_name().unwrap_or("pipeline").to_owned();
        let bytes = field.bytes().await.map_err(broken)?;
        let text = unpack(&name, &bytes)?;
        let package = Package::from_text(&text)?;
        let stem = name
            .rsplit('/')
            .next()
            .unwrap_or(&name)
            .split('.')
            .next()
            .unwrap_or(&name)
            .to_owned();
        return Ok((stem, package.to_json()));
    }
    Err(Error::field(
        "uploadfile",
        "is missing; send the package as form field uploadfile",
    ))
}

/// Text of the package in a file; archives are told by their first bytes.
fn unpack(name: &str, bytes: &[u8]) -> Result<String> {
    let bad = |why: String| Error::field("uploadfile", format!("{name}: {why}"));
    let limit = |reader: &mut dyn std::io::Read| -> Result<String> {
        let mut text = String::new();
        let read = reader.take(MAX_PACKAGE + 1).read_to_string(&mut text);
        match read {
            Ok(length) if length as u64 > MAX_PACKAGE => Err(bad("is larger than 32 MiB".to_owned())),
            Ok(_) => Ok(text),
            Err(error) => Err(bad(format!("cannot be read: {error}"))),
        }
    };
    let is_package =
        |path: &str| path.ends_with(".yaml") || path.ends_with(".yml") || path.ends_with(".json");
    if bytes.starts_with(b"PK\x03\x04") {
        let mut archive =
            zip::ZipArchive::new(std::io::Cursor::new(bytes)).map_err(|e| bad(e.to_string()))?;
        for index in 0..archive.len() {
            let mut entry = archive.by_index(index).map_err(|e| bad(e.to_string()))?;
            if entry.name().is_ok_and(|name| is_package(&name)) {
                return limit(&mut entry);
            }
        }
        return Err(bad("holds no .yaml, .yml or .json file".to_owned()));
    }
    if bytes.starts_with(&[0x1f, 0x8b]) {
        let unzipped = flate2::read::GzDecoder::new(bytes).take(4 * MAX_PACKAGE);
        let mut archive = tar::Archive::new(unzipped);
        for entry in archive.entries().map_err(|e| bad(e.to_string()))? {
            let mut entry = entry.map_err(|e| bad(e.to_string()))?;
            let path = entry
                .path()
                .map(|p| p.to_string_lossy().into_owned())
                .unwrap_or_default();
            if is_package(&path) {
                return limit(&mut entry);
            }
        }
        return Err(bad("holds no .yaml, .yml or .json file".to_owned()));
    }
    limit(&mut &*bytes)
}
