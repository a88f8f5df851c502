//! Create and update, from the decoded object to the durable one.

use serde_json::{Value, json};

use super::{default, key, present, text, tidy_meta, to_storage, valid};
use crate::admission::{self, Operation};
use crate::error::{ApiError, ApiResult};
use crate::field_error::{FieldError, FieldPath};
use crate::handler::Ctx;
use crate::managed;
use crate::meta;
use crate::registry::Resource;
use crate::server::ApiServer;
use crate::store::{Expect, WriteError};
use crate::times;

/// Which part of an object a write may change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    Main,
    Status,
    /// Namespaces' `finalize`: `spec.finalizers` only.
    Finalize,
    /// Anything, by the server itself (binding, scale).
    Internal,
}

pub(crate) fn write_error(ctx: &Ctx, name: &str, error: WriteError) -> ApiError {
    match error {
        WriteError::Exists => ApiError::already_exists(&ctx.gr(), name),
        WriteError::Missing => ApiError::not_found(&ctx.gr(), name),
        WriteError::Conflict => ApiError::modified(&ctx.gr(), name),
        broken @ WriteError::Broken(_) => ApiError::internal(broken),
    }
}

/// Puts name, namespace, uid and times into a new object.
fn begin_metadata(ctx: &Ctx, obj: &mut Value) -> ApiResult<()> {
    let namespace = ctx.ns().to_owned();
    if !obj["metadata"].is_object() {
        obj["metadata"] = json!({});
    }
    let Some(meta) = obj["metadata"].as_object_mut() else {
        return Ok(());
    };
    let given = meta.get("namespace").and_then(Value::as_str).unwrap_or_default();
    if ctx.res.namespaced {
        if !given.is_empty() && given != namespace {
            return Err(ApiError::bad_request(
                "the namespace of the provided object does not match the namespace sent on the request",
            ));
        }
        meta.insert("namespace".into(), namespace.into());
    } else if given.is_empty() {
        meta.remove("namespace");
    }
    if meta
        .get("resourceVersion")
        .and_then(Value::as_str)
        .is_some_and(|v| !v.is_empty())
    {
        return Err(ApiError::new(
            500,
            "",
            "resourceVersion should not be set on objects to be created",
            json!({}),
        ));
    }
    for field in [
        "resourceVersion",
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
        "generation",
        "selfLink",
    ] {
        meta.remove(field);
    }
    let name_given = meta
        .get("name")
        .and_then(Value::as_str)
        .is_some_and(|n| !n.is_empty());
    let prefix = meta
        .get("generateName")
        .and_then(Value::as_str)
        .unwrap_or_default()
        .to_owned();
    if !name_given && !prefix.is_empty() {
        meta.insert("name".into(), meta::generate_name(&prefix).into());
    }
    meta.insert("uid".into(), uuid::Uuid::new_v4().to_string().into());
    meta.insert("creationTimestamp".into(), times::now().into());
    if ctx.res.generation {
        meta.insert("generation".into(), 1.into());
    }
    Ok(())
}

/// Violations of the kind's own rules, metadata excluded.
fn kind_errors(res: &Resource, obj: &Value, old: Option<&Value>, part: Part) -> Vec<FieldError> {
    if let Some(rules) = res.rules() {
        if res.is("apiextensions.k8s.io", "customresourcedefinitions") {
            return crate::crd::validate(obj);
        }
        return match (part, old) {
            (Part::Status, Some(old)) => rules.validate_status_update(obj, old),
            (Part::Main, Some(old)) => rules.validate_update(obj, old),
            (Part::Main, None) => rules.validate_create(obj),
            _ => Vec::new(),
        };
    }
    let mut out = Vec::new();
    if let Some(schema) = res.custom().and_then(|c| c.schema.as_ref()) {
        let mut shown = obj.clone();
        if let Some(map) = shown.as_object_mut() {
            map.remove("metadata");
        }
        schema.validate(&shown, &FieldPath::default(), &mut out);
        if out.is_empty() {
            crate::crd::cel::validate(schema, obj, old, &FieldPath::default(), &mut out);
        }
    }
    out
}

/// Creates an object that has been decoded; returns it in the request's version.
pub(crate) async fn create(server: &ApiServer, ctx: &Ctx, mut obj: Value) -> ApiResult<Value> {
    let inner = &server.inner;
    let res = &ctx.res;
    let dry_run = ctx.dry_run()?;
    if let Some(custom) = res.custom()
        && custom.terminating
    {
        return Err(ApiError::new(
            405,
            "MethodNotAllowed",
            "create not allowed while custom resource definition is terminating",
            json!({"group": res.group, "kind": res.plural}),
        ));
    }
    begin_metadata(ctx, &mut obj)?;
    let given = obj.clone();
    default(ctx, &mut obj);
    tidy_meta(&mut obj);
    managed::on_create(ctx, &mut obj, &given);
    if res.status
        && let Some(map) = obj.as_object_mut()
    {
        map.remove("status");
    }
    if let Some(rules) = res.rules() {
        rules.prepare_create(&mut obj);
    }
    admission::builtin::mutate_create(server, ctx, &mut obj)?;
    admission::webhooks::mutate(server, ctx, Operation::Create, &mut obj, None, "").await?;
    default(ctx, &mut obj);
    tidy_meta(&mut obj);
    let allocated = admission::allocate::services(server, ctx, &mut obj, None).await?;

    let name = text(&obj["metadata"], "name").to_owned();
    let mut errors = meta::validate(&res.group, &res.plural, res.namespaced, &obj["metadata"]);
    errors.extend(kind_errors(res, &obj, None, Part::Main));
    valid(res, &name, &errors)?;
    if let Some(rules) = res.rules() {
        rules.warnings(&obj).into_iter().for_each(|w| ctx.warn(w));
    }
    admission::builtin::validate(server, ctx, Operation::Create, &obj, None)?;
    admission::webhooks::validate(server, ctx, Operation::Create, Some(&obj), None, "").await?;
    let _quota = admission::quota::reserve(server, ctx, Operation::Create, &obj, None).await?;
    let is_definition = res.is("apiextensions.k8s.io", "customresourcedefinitions");
    if is_definition {
        obj["status"] = crate::crd::initial_status(&obj);
    }
    if dry_run {
        if inner.store.get(&res.storage, ctx.ns(), &name).is_some() {
            return Err(ApiError::already_exists(&ctx.gr(), &name));
        }
        return Ok(obj);
    }
    let generated = !text(&obj["metadata"], "generateName").is_empty();
    let mut stored = to_storage(res, obj);
    let mut attempts = 0;
    loop {
        let name = text(&stored["metadata"], "name").to_owned();
        match inner
            .store
            .put(key(res, ctx.ns(), &name), Expect::Absent, stored.clone())
            .await
        {
            Ok(done) => {
                drop(allocated);
                if is_definition && let Err(error) = establish(server, &done).await {
                    tracing::warn!(%error, name, "the names of a definition are accepted later");
                }
                inner.wrote(&res.storage);
                return Ok(present(res, &done));
            }
            Err(WriteError::Exists) if generated && attempts < 8 => {
                attempts += 1;
                let prefix = text(&stored["metadata"], "generateName").to_owned();
                stored["metadata"]["name"] = meta::generate_name(&prefix).into();
            }
            Err(error) => return Err(write_error(ctx, &name, error)),
        }
    }
}

/// Accepts the names of a new definition. The real server does this a moment later, as a write of its own; here its resources are served
/// when the create returns.
pub(crate) async fn establish(server: &ApiServer, crd: &crate::store::Obj) -> Result<(), WriteError> {
    let mut new = crd.value().clone();
    new["status"] = crate::crd::status(&new, taken_names(server, &new).as_deref());
    let place = crate::store::Key {
        resource: "apiextensions.k8s.io/customresourcedefinitions".into(),
        namespace: String::new(),
        name: text(&new["metadata"], "name").to_owned(),
    };
    server
        .inner
        .store
        .put(place, Expect::Version(crd.rv), new)
        .await
        .map(drop)
}

/// Another definition that has the names of this one.
fn taken_names(server: &ApiServer, crd: &Value) -> Option<String> {
    let spec = &crd["spec"];
    let group = text(spec, "group");
    let plural = text(&spec["names"], "plural");
    let own = format!("{plural}.{group}");
    for other in server.inner.registry.snapshot().all() {
        let is_own = other.custom().is_some_and(|c| c.crd_name == own);
        if other.group == group
            && !is_own
            && (other.plural == plural || other.kind == text(&spec["names"], "kind"))
        {
            return Some(format!("{plural:?} is already in use"));
        }
    }
    None
}

/// PUT: replaces the object (or its status).
pub(crate) async fn replace(server: &ApiServer, ctx: &Ctx, body: &[u8]) -> ApiResult<(Value, bool)> {
    let obj = super::decode::body(ctx, body)?;
    let name = ctx.info.name.clone();
    let given = text(&obj["metadata"], "name");
    if given.is_empty() {
        return Err(ApiError::invalid(
            &ctx.res.group,
            &ctx.res.kind,
            &name,
            &[FieldError::required("metadata.name", "name must be provided")],
        )
        .into_name_mismatch(given, &name));
    }
    if given != name {
        return Err(ApiError::bad_request(format!(
            "the name of the object ({given}) does not match the name on the URL ({name})"
        )));
    }
    let given_ns = text(&obj["metadata"], "namespace");
    if ctx.res.namespaced && !given_ns.is_empty() && given_ns != ctx.ns() {
        return Err(ApiError::bad_request(format!(
            "the namespace of the object ({given_ns}) does not match the namespace on the request ({})",
            ctx.ns()
        )));
    }
    let part = match ctx.info.subresource.as_str() {
        "status" => Part::Status,
        "finalize" => Part::Finalize,
        _ => Part::Main,
    };
    let value = update(server, ctx, &name, part, |_| Ok(obj.clone())).await?;
    Ok((value, false))
}

impl ApiError {
    fn into_name_mismatch(self, given: &str, name: &str) -> Self {
        if given.is_empty() && !name.is_empty() {
            return Self::bad_request(format!(
                "the name of the object ({given}) does not match the name on the URL ({name})"
            ));
        }
        self
    }
}

/// Reads, changes and writes an object; `compute` makes the new state of the old one, both in the request's version, and may be
/// called again when another write came between.
pub(crate) async fn update(
    server: &ApiServer,
    ctx: &Ctx,
    name: &str,
    part: Part,
    compute: impl Fn(&Value) -> ApiResult<Value> + Send + Sync,
) -> ApiResult<Value> {
    let inner = &server.inner;
    let res = &ctx.res;
    let place = key(res, ctx.ns(), name);
    for _ in 0..16 {
        let seen = inner.store.latest(&place);
        let done = match &seen.obj {
            None => Err(ApiError::not_found(&ctx.gr(), name)),
            Some(current) => update_once(server, ctx, name, part, current, &compute).await,
        };
        match done {
            Err(e) if e.is_lost_race() => {}
            Ok(Done::Written(value)) => return Ok(value),
            // a refusal, or that nothing changes, counts only if what it was found by is durable
            other if inner.store.stands(&seen).await => return other.map(Done::into_value),
            _ => {}
        }
    }
    Err(ApiError::modified(&ctx.gr(), name))
}

/// The new state of an object.
enum Done {
    Written(Value),
    /// Nothing changed, or this was a dry run.
    Unwritten(Value),
}

impl Done {
    fn into_value(self) -> Value {
        let (Self::Written(value) | Self::Unwritten(value)) = self;
        value
    }
}

async fn update_once(
    server: &ApiServer,
    ctx: &Ctx,
    name: &str,
    part: Part,
    current: &crate::store::Obj,
    compute: &(impl Fn(&Value) -> ApiResult<Value> + Send + Sync),
) -> ApiResult<Done> {
    let res = &ctx.res;
    let old = present(res, current);
    let mut new = compute(&old)?;
    let asked = text(&new["metadata"], "resourceVersion");
    if !asked.is_empty() && asked != text(&old["metadata"], "resourceVersion") {
        if asked.parse::<u64>().is_err() {
            let errors = [FieldError::invalid(
                "metadata.resourceVersion",
                asked,
                "must be specified for an update",
            )];
            return Err(ApiError::invalid(&res.group, &res.kind, name, &errors));
        }
        return Err(ApiError::modified(&ctx.gr(), name));
    }
    write_once(server, ctx, name, part, current, &old, &mut new).await
}

impl ApiError {
    const RACE: &'static str = "lost race";
    fn lost_race() -> Self {
        Self::new(409, "Conflict", Self::RACE, json!({}))
    }
    fn is_lost_race(&self) -> bool {
        self.message() == Self::RACE
    }
}

async fn write_once(
    server: &ApiServer,
    ctx: &Ctx,
    name: &str,
    part: Part,
    current: &crate::store::Obj,
    old: &Value,
    new: &mut Value,
) -> ApiResult<Done> {
    let inner = &server.inner;
    let res = &ctx.res;
    let dry_run = ctx.dry_run()?;
    carry_metadata(ctx, name, old, new)?;
    match part {
        Part::Main => {
            if res.status {
                copy_field(old, new, "status");
            }
        }
        Part::Status => keep_all_but_status(res, old, new),
        Part::Finalize => {
            let finalizers = new["spec"]["finalizers"].clone();
            let metadata = new["metadata"]["finalizers"].clone();
            *new = old.clone();
            new["spec"]["finalizers"] = finalizers;
            new["metadata"]["finalizers"] = metadata;
        }
        Part::Internal => {}
    }
    default(ctx, new);
    tidy_meta(new);
    managed::on_update(ctx, old, new);
    if part == Part::Main
        && let Some(rules) = res.rules()
    {
        rules.prepare_update(new, old);
    }
    let sub = if part == Part::Status { "status" } else { "" };
    if part != Part::Finalize && part != Part::Internal {
        admission::webhooks::mutate(server, ctx, Operation::Update, new, Some(old), sub).await?;
        carry_metadata(ctx, name, old, new)?;
        default(ctx, new);
    }
    tidy_meta(new);
    let allocated = if part == Part::Main {
        admission::allocate::services(server, ctx, new, Some(old)).await?
    } else {
        None
    };
    bump_generation(res, old, new, part);

    let mut errors = meta::validate(&res.group, &res.plural, res.namespaced, &new["metadata"]);
    errors.extend(meta::validate_update(&new["metadata"], &old["metadata"]));
    errors.extend(kind_errors(res, new, Some(old), part));
    valid(res, name, &errors)?;
    if part != Part::Finalize && part != Part::Internal {
        if let Some(rules) = res.rules() {
            rules.warnings(new).into_iter().for_each(|w| ctx.warn(w));
        }
        admission::builtin::validate(server, ctx, Operation::Update, new, Some(old))?;
        admission::webhooks::validate(server, ctx, Operation::Update, Some(new), Some(old), sub).await?;
    }
    let _quota = match part {
        Part::Main => admission::quota::reserve(server, ctx, Operation::Update, new, Some(old)).await?,
        _ => None,
    };
    if res.is("apiextensions.k8s.io", "customresourcedefinitions") && part == Part::Main {
        new["status"] = crate::crd::status(new, taken_names(server, new).as_deref());
    }
    let place = key(res, ctx.ns(), name);
    if deletion_is_due(res, old, new) {
        if dry_run {
            return Ok(Done::Unwritten(new.clone()));
        }
        // Watchers see the last stored state, with what held it.
        let last = current.to_value();
        let done = inner
            .store
            .remove(place, current.rv, last)
            .await
            .map_err(|e| match e {
                WriteError::Conflict => ApiError::lost_race(),
                other => write_error(ctx, name, other),
            })?;
        inner.wrote(&res.storage);
        new["metadata"]["resourceVersion"] = done.rv.to_string().into();
        return Ok(Done::Written(new.clone()));
    }
    if same(old, new) {
        return Ok(Done::Unwritten(old.clone()));
    }
    if dry_run {
        new["metadata"]["resourceVersion"] = old["metadata"]["resourceVersion"].clone();
        return Ok(Done::Unwritten(new.clone()));
    }
    let stored = to_storage(res, new.clone());
    let done = inner
        .store
        .put(place, Expect::Version(current.rv), stored)
        .await
        .map_err(|e| match e {
            WriteError::Conflict => ApiError::lost_race(),
            other => write_error(ctx, name, other),
        })?;
    drop(allocated);
    inner.wrote(&res.storage);
    Ok(Done::Written(present(res, &done)))
}

fn copy_field(from: &Value, to: &mut Value, field: &str) {
    if let Some(map) = to.as_object_mut() {
        match from.get(field) {
            Some(v) => {
                map.insert(field.to_owned(), v.clone());
            }
            None => {
                map.remove(field);
            }
        }
    }
}

fn keep_all_but_status(res: &Resource, old: &Value, new: &mut Value) {
    // Built-in kinds take their metadata with their status (Deployments all but labels); custom ones keep theirs.
    let open = res.custom().is_none();
    let labels = !res.is("apps", "deployments");
    let status = new.get("status").cloned();
    let metadata = new["metadata"].clone();
    *new = old.clone();
    if let Some(map) = new.as_object_mut() {
        match status {
            Some(status) => {
                map.insert("status".into(), status);
            }
            None => {
                map.remove("status");
            }
        }
    }
    if open {
        for field in ["labels", "annotations", "finalizers"]
            .into_iter()
            .filter(|f| labels || *f != "labels")
        {
            if let Some(map) = new["metadata"].as_object_mut() {
                match metadata.get(field) {
                    Some(v) => {
                        map.insert(field.into(), v.clone());
                    }
                    None => {
                        map.remove(field);
                    }
                }
            }
        }
    }
    new["metadata"]["managedFields"] = metadata["managedFields"].clone();
}

/// The server's part of metadata stays what it was.
fn carry_metadata(ctx: &Ctx, name: &str, old: &Value, new: &mut Value) -> ApiResult<()> {
    let old_meta = &old["metadata"];
    if !new["metadata"].is_object() {
        new["metadata"] = json!({});
    }
    let Some(meta) = new["metadata"].as_object_mut() else {
        return Ok(());
    };
    let uid = meta.get("uid").and_then(Value::as_str).unwrap_or_default();
    let old_uid = text(old_meta, "uid");
    if !uid.is_empty() && uid != old_uid {
        if ctx.info.verb == "patch" {
            let immutable = FieldError::invalid("metadata.uid", uid, "field is immutable");
            let errors = [immutable.clone(), immutable];
            return Err(ApiError::invalid(&ctx.res.group, &ctx.res.kind, name, &errors));
        }
        let prefix = if ctx.res.custom().is_some() {
            format!("{}/", ctx.res.group)
        } else {
            String::new()
        };
        let ns = if ctx.ns().is_empty() {
            String::new()
        } else {
            format!("{}/", ctx.ns())
        };
        return Err(ApiError::conflict(
            &ctx.gr(),
            name,
            format!(
                "StorageError: invalid object, Code: 4, Key: /registry/{prefix}{}/{ns}{name}, ResourceVersion: 0, AdditionalErrorMsg: Precondition failed: UID in precondition: {uid}, UID in object meta: {old_uid}",
                ctx.res.plural
            ),
        ));
    }
    let given = meta.get("name").and_then(Value::as_str).unwrap_or(name);
    if given != name {
        return Err(ApiError::bad_request(format!(
            "the name of the object ({given}) does not match the name on the URL ({name})"
        )));
    }
    for field in [
        "name",
        "namespace",
        "uid",
        "creationTimestamp",
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
        "generation",
        "resourceVersion",
        "generateName",
    ] {
        match old_meta.get(field) {
            Some(v) => {
                meta.insert(field.into(), v.clone());
            }
            None => {
                meta.remove(field);
            }
        }
    }
    Ok(())
}

fn bump_generation(res: &Resource, old: &Value, new: &mut Value, part: Part) {
    // A binding sets `spec.nodeName` and is no change of what the user asked for.
    if !res.generation || (part == Part::Internal && res.is("", "pods")) {
        return;
    }
    let annotated = res.is("apps", "deployments")
        && part != Part::Status
        && old["metadata"]["annotations"] != new["metadata"]["annotations"];
    let strip = |v: &Value| -> Value {
        let mut v = v.clone();
        if let Some(map) = v.as_object_mut() {
            map.remove("metadata");
            map.remove("apiVersion");
            if res.status || res.custom().is_none() {
                map.remove("status");
            }
        }
        v
    };
    if annotated || strip(old) != strip(new) {
        let generation = old["metadata"]["generation"].as_i64().unwrap_or(0);
        new["metadata"]["generation"] = (generation + 1).into();
    }
}

/// Whether an update was the last thing that a deletion waited for.
fn deletion_is_due(res: &Resource, old: &Value, new: &Value) -> bool {
    let none = |v: &Value| v.as_array().is_none_or(Vec::is_empty);
    if old["metadata"]["deletionTimestamp"].is_null() || !none(&new["metadata"]["finalizers"]) {
        return false;
    }
    if res.is("", "namespaces") {
        return none(&new["spec"]["finalizers"]);
    }
    old["metadata"]["deletionGracePeriodSeconds"]
        .as_i64()
        .unwrap_or(0)
        == 0
}

/// Equal but for what every write changes.
fn same(old: &Value, new: &Value) -> bool {
    let (Some(a), Some(b)) = (old.as_object(), new.as_object()) else {
        return old == new;
    };
    let ignored = |k: &str| matches!(k, "resourceVersion" | "managedFields");
    let plain = |m: &serde_json::Map<String, Value>| m.iter().filter(|(k, _)| *k != "metadata").count();
    if plain(a) != plain(b) || a.iter().any(|(k, v)| k != "metadata" && b.get(k) != Some(v)) {
        return false;
    }
    let (Some(a), Some(b)) = (old["metadata"].as_object(), new["metadata"].as_object()) else {
        return false;
    };
    let count = |m: &serde_json::Map<String, Value>| m.keys().filter(|k| !ignored(k)).count();
    count(a) == count(b)
        && a.iter().all(|(k, v)| ignored(k) || b.get(k) == Some(v))
        && managed::same_owners(
            &old["metadata"]["managedFields"],
            &new["metadata"]["managedFields"],
        )
}
