//! TokenReview, the access reviews and SelfSubjectReview: asked, never stored.

use axum::response::Response;
use http::{Method, StatusCode};
use k8s_openapi::api::authentication::v1::UserInfo;
use serde_json::{Value, json};

use crate::auth::rbac::Attributes;
use crate::auth::tokens::ISSUER;
use crate::auth::{groups, username};
use crate::error::{ApiError, ApiResult};
use crate::field_error::FieldError;
use crate::handler::json_answer;
use crate::objects::{decode, text};
use crate::request::RequestInfo;
use crate::server::ApiServer;
use crate::times;

/// The kinds of review.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Review {
    Token,
    SelfSubject,
    Access,
    LocalAccess,
    SelfAccess,
    SelfRules,
    NotAllowed,
}

pub(crate) const AUTHENTICATION: [(&str, &str); 2] = [
    ("selfsubjectreviews", "SelfSubjectReview"),
    ("tokenreviews", "TokenReview"),
];
pub(crate) const AUTHORIZATION: [(&str, &str, bool); 4] = [
    ("localsubjectaccessreviews", "LocalSubjectAccessReview", true),
    ("selfsubjectaccessreviews", "SelfSubjectAccessReview", false),
    ("selfsubjectrulesreviews", "SelfSubjectRulesReview", false),
    ("subjectaccessreviews", "SubjectAccessReview", false),
];

/// Which review the path names.
pub(crate) fn serve(
    _server: &ApiServer,
    _user: &UserInfo,
    info: &RequestInfo,
    method: &Method,
) -> Option<Review> {
    if info.version != "v1" {
        return None;
    }
    let review = match (info.group.as_str(), info.resource.as_str()) {
        ("authentication.k8s.io", "tokenreviews") => Review::Token,
        ("authentication.k8s.io", "selfsubjectreviews") => Review::SelfSubject,
        ("authorization.k8s.io", "subjectaccessreviews") => Review::Access,
        ("authorization.k8s.io", "localsubjectaccessreviews") => Review::LocalAccess,
        ("authorization.k8s.io", "selfsubjectaccessreviews") => Review::SelfAccess,
        ("authorization.k8s.io", "selfsubjectrulesreviews") => Review::SelfRules,
        _ => return None,
    };
    Some(if *method == Method::POST {
        review
    } else {
        Review::NotAllowed
    })
}

fn texts(v: &Value) -> Vec<String> {
    v.as_array()
        .into_iter()
        .flatten()
        .filter_map(|x| x.as_str().map(str::to_owned))
        .collect()
}

fn access(server: &ApiServer, user: &UserInfo, spec: &Value) -> Value {
    let r = &spec["resourceAttributes"];
    let path = spec["nonResourceAttributes"]["path"].as_str();
    let attributes = if r.is_object() {
        Attributes {
            verb: text(r, "verb"),
            group: text(r, "group"),
            resource: text(r, "resource"),
            subresource: text(r, "subresource"),
            namespace: text(r, "namespace"),
            name: text(r, "name"),
            path: None,
        }
    } else {
        Attributes {
            verb: text(&spec["nonResourceAttributes"], "verb"),
            path,
            ..Attributes::default()
        }
    };
    match server.inner.rbac().allows(user, &attributes) {
        Some(reason) if reason.is_empty() => json!({"allowed": true}),
        Some(reason) => json!({"allowed": true, "reason": reason}),
        None => json!({"allowed": false}),
    }
}

/// Answers a review.
pub(crate) fn answer(
    server: &ApiServer,
    user: &UserInfo,
    info: &RequestInfo,
    review: Review,
    body: &[u8],
) -> ApiResult<Response> {
    let mut request: Value = decode::parse("application/json", body)?;
    let kind = match review {
        Review::NotAllowed => return Err(ApiError::method_not_allowed()),
        Review::Token => "TokenReview",
        Review::SelfSubject => "SelfSubjectReview",
        Review::Access => "SubjectAccessReview",
        Review::LocalAccess => "LocalSubjectAccessReview",
        Review::SelfAccess => "SelfSubjectAccessReview",
        Review::SelfRules => "SelfSubjectRulesReview",
    };
    request["kind"] = kind.into();
    request["apiVersion"] = format!("{}/v1", info.group).into();
    if !request["metadata"].is_object() {
        request["metadata"] = json!({});
    }
    let invalid = |e: FieldError| ApiError::invalid(&info.group, "", "", &[e]);
    let spec = request["spec"].clone();
    request["status"] = match review {
        Review::Token => {
            let token = text(&spec, "token");
            if token.is_empty() {
                return Err(ApiError::bad_request(
                    "token is required for TokenReview in authentication",
                ));
            }
            let wanted = texts(&spec["audiences"]);
            let wanted = if wanted.is_empty() {
                vec![ISSUER.to_owned()]
            } else {
                wanted
            };
            match server.inner.authenticate(token) {
                Some((found, audiences)) => {
                    let common: Vec<String> = wanted.into_iter().filter(|a| audiences.contains(a)).collect();
                    if common.is_empty() {
                        json!({"user": {}, "error": "[invalid bearer token, token audiences are invalid]"})
                    } else {
                        json!({"authenticated": true, "user": found, "audiences": common})
                    }
                }
                None => json!({"user": {}, "error": "[invalid bearer token, token lookup failed]"}),
            }
        }
        Review::SelfSubject => {
            request["metadata"]["creationTimestamp"] = times::now().into();
            json!({"userInfo": user})
        }
        Review::Access | Review::LocalAccess => {
            let name = text(&spec, "user");
            let named = texts(&spec["groups"]);
            if name.is_empty() && named.is_empty() {
                return Err(invalid(FieldError::invalid(
                    "spec.user",
                    "",
                    "at least one of user or group must be specified",
                )));
            }
            check_attributes(&spec).map_err(invalid)?;
            if review == Review::LocalAccess
                && text(&spec["resourceAttributes"], "namespace") != info.namespace
            {
                return Err(invalid(FieldError::invalid(
                    "spec.resourceAttributes.namespace",
                    text(&spec["resourceAttributes"], "namespace"),
                    "must match metadata.namespace",
                )));
            }
            let subject = UserInfo {
                username: Some(name.to_owned()),
                groups: Some(named),
                ..UserInfo::default()
            };
            access(server, &subject, &spec)
        }
        Review::SelfAccess => {
            check_attributes(&spec).map_err(invalid)?;
            access(server, user, &spec)
        }
        Review::SelfRules => {
            let ns = text(&spec, "namespace");
            if ns.is_empty() {
                return Err(ApiError::bad_request("no namespace on request"));
            }
            let rules = server.inner.rbac().rules(user, ns);
            let resource: Vec<Value> = rules
                .iter()
                .filter(|r| !r.resources.is_empty())
                .map(|r| json!(r))
                .collect();
            let other: Vec<Value> = rules
                .iter()
                .filter(|r| !r.non_resource_urls.is_empty())
                .map(|r| json!({"verbs": r.verbs, "nonResourceURLs": r.non_resource_urls}))
                .collect();
            json!({"resourceRules": resource, "nonResourceRules": other, "incomplete": false})
        }
        Review::NotAllowed => Value::Null,
    };
    let _ = (username(user), groups(user));
    Ok(json_answer(false, StatusCode::CREATED, &request))
}

fn check_attributes(spec: &Value) -> Result<(), FieldError> {
    match (
        spec["resourceAttributes"].is_object(),
        spec["nonResourceAttributes"].is_object(),
    ) {
        (true, true) => Err(FieldError::invalid(
            "spec.nonResourceAttributes",
            // Printed as Kubernetes' internal type is.
            json!({"Path": spec["nonResourceAttributes"]["path"], "Verb": spec["nonResourceAttributes"]["verb"]}),
            "cannot be specified in combination with resourceAttributes",
        )),
        (false, false) => Err(FieldError::invalid(
            "spec.resourceAttributes",
            spec["nonResourceAttributes"].clone(),
            "exactly one of nonResourceAttributes or resourceAttributes must be specified",
        )),
        _ => Ok(()),
    }
}
