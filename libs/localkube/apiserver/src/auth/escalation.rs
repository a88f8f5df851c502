//! Nobody grants by roles or bindings what they do not hold.

use k8s_openapi::api::authentication::v1::UserInfo;

use super::rbac::Rule;
use super::{groups, username};

fn atoms(rule: &Rule) -> Vec<Rule> {
    let mut out = Vec::new();
    for verb in &rule.verbs {
        for url in &rule.non_resource_urls {
            out.push(Rule {
                verbs: vec![verb.clone()],
                non_resource_urls: vec![url.clone()],
                ..Rule::default()
            });
        }
        for group in &rule.api_groups {
            for resource in &rule.resources {
                let base = Rule {
                    verbs: vec![verb.clone()],
                    api_groups: vec![group.clone()],
                    resources: vec![resource.clone()],
                    ..Rule::default()
                };
                if rule.resource_names.is_empty() {
                    out.push(base);
                } else {
                    out.extend(rule.resource_names.iter().map(|n| Rule {
                        resource_names: vec![n.clone()],
                        ..base.clone()
                    }));
                }
            }
        }
    }
    out
}

fn covered(owner: &Rule, atom: &Rule) -> bool {
    let has = |have: &[String], want: &[String]| {
        have.iter().any(|h| h == "*") || want.iter().all(|w| have.contains(w))
    };
    if !has(&owner.verbs, &atom.verbs) {
        return false;
    }
    if let Some(url) = atom.non_resource_urls.first() {
        return owner
            .non_resource_urls
            .iter()
            .any(|u| u == "*" || u == url || u.strip_suffix('*').is_some_and(|p| url.starts_with(p)));
    }
    let resource = atom.resources.first().map_or("", String::as_str);
    let resources = owner.resources.iter().any(|r| {
        r == "*"
            || r == resource
            || r.strip_prefix("*/")
                .is_some_and(|sub| resource.ends_with(&format!("/{sub}")))
    });
    let names = owner.resource_names.is_empty()
        || (!atom.resource_names.is_empty()
            && atom
                .resource_names
                .iter()
                .all(|n| owner.resource_names.contains(n)));
    has(&owner.api_groups, &atom.api_groups) && resources && names
}

fn list(items: &[String]) -> String {
    let quoted: Vec<String> = items.iter().map(|i| format!("{i:?}")).collect();
    format!("[{}]", quoted.join(" "))
}

fn shown(rule: &Rule) -> String {
    let mut parts = Vec::new();
    for (name, items) in [
        ("APIGroups", &rule.api_groups),
        ("Resources", &rule.resources),
        ("ResourceNames", &rule.resource_names),
        ("NonResourceURLs", &rule.non_resource_urls),
        ("Verbs", &rule.verbs),
    ] {
        if !items.is_empty() {
            parts.push(format!("{name}:{}", list(items)));
        }
    }
    format!("{{{}}}", parts.join(", "))
}

/// The error text when `wanted` goes beyond `held`.
pub fn check(user: &UserInfo, held: &[Rule], wanted: &[Rule]) -> Result<(), String> {
    let mut missing: Vec<Rule> = Vec::new();
    for atom in wanted.iter().flat_map(atoms) {
        if held.iter().any(|h| covered(h, &atom)) {
            continue;
        }
        // Rules that differ in the verb only are shown as one, as Kubernetes compacts them.
        match missing.iter_mut().find(|m| {
            m.api_groups == atom.api_groups
                && m.resources == atom.resources
                && m.resource_names == atom.resource_names
                && m.non_resource_urls == atom.non_resource_urls
        }) {
            Some(m) => m.verbs.extend(atom.verbs),
            None => missing.push(atom),
        }
    }
    if missing.is_empty() {
        return Ok(());
    }
    let mut lines: Vec<String> = missing.iter().map(shown).collect();
    lines.sort();
    Err(format!(
        "user {:?} (groups={}) is attempting to grant RBAC permissions not currently held:\n{}",
        username(user),
        list(groups(user)),
        lines.join("\n")
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(verbs: &[&str], resources: &[&str]) -> Rule {
        Rule {
            verbs: verbs.iter().map(ToString::to_string).collect(),
            api_groups: vec![String::new()],
            resources: resources.iter().map(ToString::to_string).collect(),
            ..Rule::default()
        }
    }

    #[test]
    fn grants_are_limited_to_what_is_held() {
        let user = super::super::user("u", &["g"]);
        let held = [rule(&["get", "list"], &["pods"])];
        assert!(check(&user, &held, &[rule(&["get"], &["pods"])]).is_ok());
        let text = check(&user, &held, &[rule(&["get", "create"], &["pods", "secrets"])]).unwrap_err();
        assert_eq!(
            text,
            "user \"u\" (groups=[\"g\" \"system:authenticated\"]) is attempting to grant RBAC permissions not currently held:\n\
             {APIGroups:[\"\"], Resources:[\"pods\"], Verbs:[\"create\"]}\n\
             {APIGroups:[\"\"], Resources:[\"secrets\"], Verbs:[\"get\" \"create\"]}"
        );
    }
}
