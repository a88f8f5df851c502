//! Addresses and node ports of Services.

use std::collections::HashSet;
use std::net::Ipv4Addr;

use serde_json::{Value, json};
use tokio::sync::MutexGuard;

use crate::error::{ApiError, ApiResult};
use crate::field_error::FieldError;
use crate::handler::Ctx;
use crate::objects::text;
use crate::server::ApiServer;

const SERVICES: &str = "/services";

/// Fills in `clusterIP(s)` and node ports of a Service. The guard is held until the Service is stored.
pub(crate) async fn services<'a>(
    server: &'a ApiServer,
    ctx: &Ctx,
    obj: &mut Value,
    old: Option<&Value>,
) -> ApiResult<Option<MutexGuard<'a, ()>>> {
    if !ctx.res.is("", "services") {
        return Ok(None);
    }
    let kind = text(&obj["spec"], "type").to_owned();
    let spec_old = old.map(|o| o["spec"].clone()).unwrap_or(Value::Null);
    if kind == "ExternalName" {
        if let Some(spec) = obj["spec"].as_object_mut() {
            for field in ["clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy"] {
                if old.is_some() {
                    spec.remove(field);
                }
            }
        }
        return Ok(None);
    }
    let guard = server.inner.allocation.lock().await;
    let name = text(&obj["metadata"], "name").to_owned();
    let others: Vec<Value> = server
        .inner
        .store
        .list(SERVICES, None, None)
        .1
        .iter()
        .map(|other| other.to_value())
        .filter(|other| other["metadata"]["uid"] != obj["metadata"]["uid"])
        .map(|mut other| other["spec"].take())
        .collect();
    let invalid = |e: FieldError| Err(ApiError::invalid("", "Service", &name, &[e]));
    let spec = &mut obj["spec"];
    if !spec.is_object() {
        *spec = json!({});
    }
    // An update that leaves the address out keeps it.
    if text(spec, "clusterIP").is_empty() && !text(&spec_old, "clusterIP").is_empty() {
        spec["clusterIP"] = spec_old["clusterIP"].clone();
        spec["clusterIPs"] = spec_old["clusterIPs"].clone();
    }
    let cidr = server.inner.config.service_cidr;
    let asked = text(spec, "clusterIP").to_owned();
    let asked = if asked.is_empty() {
        spec["clusterIPs"][0].as_str().unwrap_or_default().to_owned()
    } else {
        asked
    };
    let address = match asked.as_str() {
        "None" => "None".to_owned(),
        "" => {
            let taken: HashSet<&str> = others.iter().map(|s| text(s, "clusterIP")).collect();
            let free = (0..1024)
                .map(|_| cidr.address(rand::random_range(16..cidr.size() - 1)).to_string())
                .find(|a| !taken.contains(a.as_str()));
            free.ok_or_else(|| ApiError::internal("failed to allocate a serviceIP: range is full"))?
        }
        given => {
            let same = text(&spec_old, "clusterIP") == given;
            let fits = given.parse::<Ipv4Addr>().is_ok_and(|ip| cidr.contains(ip));
            if !same && !fits {
                let why = format!(
                    "failed to allocate IP {given}: the provided IP ({given}) is not in the valid range. The range of valid IPs is {cidr}"
                );
                return invalid(FieldError::invalid("spec.clusterIPs", json!([given]), why));
            }
            if !same && others.iter().any(|s| text(s, "clusterIP") == given) {
                let why = format!("failed to allocate IP {given}: provided IP is already allocated");
                return invalid(FieldError::invalid("spec.clusterIPs", json!([given]), why));
            }
            given.to_owned()
        }
    };
    spec["clusterIP"] = address.as_str().into();
    spec["clusterIPs"] = json!([address]);
    if spec["ipFamilies"].as_array().is_none_or(Vec::is_empty) {
        spec["ipFamilies"] = json!(["IPv4"]);
    }
    if text(spec, "ipFamilyPolicy").is_empty() {
        spec["ipFamilyPolicy"] = "SingleStack".into();
    }
    let wants_ports = matches!(kind.as_str(), "NodePort" | "LoadBalancer");
    let mut taken: HashSet<i64> = others
        .iter()
        .flat_map(|s| s["ports"].as_array().cloned().unwrap_or_default())
        .filter_map(|p| p["nodePort"].as_i64())
        .collect();
    let range = server.inner.config.node_ports.clone();
    if let Some(ports) = spec.get_mut("ports").and_then(Value::as_array_mut) {
        for (i, port) in ports.iter_mut().enumerate() {
            let given = port["nodePort"].as_i64().unwrap_or(0);
            if !wants_ports {
                continue;
            }
            if given == 0 {
                let old_port = spec_old["ports"]
                    .as_array()
                    .into_iter()
                    .flatten()
                    .find(|p| p["port"] == port["port"] && p["protocol"] == port["protocol"])
                    .and_then(|p| p["nodePort"].as_i64())
                    .filter(|p| *p != 0);
                let chosen = match old_port {
                    Some(p) => p,
                    None => (0..4096)
                        .map(|_| i64::from(rand::random_range(range.clone())))
                        .find(|p| !taken.contains(p))
                        .ok_or_else(|| ApiError::internal("failed to allocate a nodePort: range is full"))?,
                };
                port["nodePort"] = chosen.into();
                taken.insert(chosen);
            } else if taken.contains(&given) {
                let at = format!("spec.ports[{i}].nodePort");
                return invalid(FieldError::invalid(
                    at,
                    given,
                    "provided port is already allocated",
                ));
            }
        }
    }
    Ok(Some(guard))
}
