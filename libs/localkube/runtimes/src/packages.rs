//! What is to be installed: requirements and indexes, in one normal form that names them.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// Where packages come from.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Indexes {
    pub index_url: Option<String>,
    pub extra_index_urls: Vec<String>,
    pub find_links: Vec<String>,
    pub no_index: bool,
    pub trusted_hosts: Vec<String>,
}

impl Indexes {
    /// Options for `uv pip install`.
    pub fn arguments(&self) -> Vec<String> {
        let mut out = Vec::new();
        let mut option = |name: &str, value: &str| out.extend([name.to_owned(), value.to_owned()]);
        if let Some(url) = &self.index_url {
            option("--index-url", url);
        }
        self.extra_index_urls
            .iter()
            .for_each(|url| option("--extra-index-url", url));
        self.find_links.iter().for_each(|url| option("--find-links", url));
        self.trusted_hosts
            .iter()
            .for_each(|host| option("--allow-insecure-host", host));
        if !self.extra_index_urls.is_empty() {
            // pip looks at all indexes alike
            option("--index-strategy", "unsafe-best-match");
        }
        if self.no_index {
            out.push("--no-index".to_owned());
        }
        out
    }

    /// What `self` leaves open is taken from `defaults`.
    pub fn or(mut self, defaults: &Indexes) -> Self {
        if self.index_url.is_none() {
            self.index_url.clone_from(&defaults.index_url);
        }
        let extend = |own: &mut Vec<String>, more: &[String]| {
            for item in more {
                if !own.contains(item) {
                    own.push(item.clone());
                }
            }
        };
        extend(&mut self.extra_index_urls, &defaults.extra_index_urls);
        extend(&mut self.find_links, &defaults.find_links);
        extend(&mut self.trusted_hosts, &defaults.trusted_hosts);
        self.no_index |= defaults.no_index;
        self
    }

    /// The `PIP_*` and `UV_*` variables of this process's environment.
    pub fn from_environment() -> Self {
        let one = |names: &[&str]| {
            names
                .iter()
                .find_map(|n| std::env::var(n).ok().filter(|v| !v.trim().is_empty()))
        };
        let many = |names: &[&str]| {
            one(names)
                .map(|v| v.split_whitespace().map(str::to_owned).collect())
                .unwrap_or_default()
        };
        Self {
            index_url: one(&["PIP_INDEX_URL", "UV_DEFAULT_INDEX", "UV_INDEX_URL"]),
            extra_index_urls: many(&["PIP_EXTRA_INDEX_URL", "UV_INDEX", "UV_EXTRA_INDEX_URL"]),
            find_links: existing(many(&["PIP_FIND_LINKS", "UV_FIND_LINKS"])),
            no_index: one(&["PIP_NO_INDEX", "UV_NO_INDEX"])
                .is_some_and(|v| matches!(v.as_str(), "1" | "true" | "yes" | "on")),
            trusted_hosts: many(&["PIP_TRUSTED_HOST", "UV_INSECURE_HOST"]),
        }
    }

    /// The user's and the machine's `pip.conf`, the user's first.
    pub fn from_pip_conf() -> Self {
        let home = std::env::var_os("HOME").map(PathBuf::from).unwrap_or_default();
        let named = std::env::var_os("PIP_CONFIG_FILE").map(PathBuf::from);
        let files = named.into_iter().chain([
            home.join(".config/pip/pip.conf"),
            home.join(".pip/pip.conf"),
            PathBuf::from("/etc/pip.conf"),
        ]);
        files
            .filter_map(|f| std::fs::read_to_string(f).ok())
            .fold(Self::default(), |all, text| all.or(&parse_pip_conf(&text)))
    }
}

// uv refuses a folder that does not exist; pip only warns
fn existing(links: Vec<String>) -> Vec<String> {
    links
        .into_iter()
        .filter(|l| l.contains("://") || Path::new(l).exists())
        .collect()
}

fn parse_pip_conf(text: &str) -> Indexes {
    let mut section = String::new();
    let mut key = String::new();
    let mut indexes = Indexes::default();
    for line in text.lines() {
        let trimmed = line.trim();
        if trimmed.is_empty() || trimmed.starts_with(['#', ';']) {
            continue;
        }
        if let Some(name) = trimmed.strip_prefix('[') {
            section = name.trim_end_matches(']').to_ascii_lowercase();
            continue;
        }
        let value = match line.split_once('=') {
            Some((name, value)) if !line.starts_with(char::is_whitespace) => {
                key = name.trim().replace('_', "-");
                value.trim()
            }
            // a value goes on in indented lines
            _ => trimmed,
        };
        if value.is_empty() || !matches!(section.as_str(), "global" | "install") {
            continue;
        }
        let words = value.split_whitespace().map(str::to_owned);
        match key.as_str() {
            "index-url" => indexes.index_url = Some(value.to_owned()),
            "extra-index-url" => indexes.extra_index_urls.extend(words),
            "find-links" => indexes.find_links.extend(existing(words.collect())),
            "trusted-host" => indexes.trusted_hosts.extend(words),
            "no-index" => indexes.no_index = matches!(value, "1" | "true" | "yes" | "on"),
            _ => {}
        }
    }
    indexes
}

/// One thing to install.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Requirement {
    /// `name[extras]<specifiers>; marker`, or anything with a fixed address.
    Named(String),
    /// A file whose content counts, e.g. a wheel; kept as an absolute path.
    File(PathBuf),
    /// A folder, an editable install or a moving branch: what it gives may change, so it is never shared.
    Moving(String),
}

impl Requirement {
    /// Understands one requirement as pip would, relative to `base`.
    pub fn parse(text: &str, base: &Path) -> Self {
        let text = text.trim();
        let address = text.split_once(" @ ").map_or(text, |(_, url)| url.trim());
        if let Some((_, rest)) = address
            .split_once('+')
            .filter(|(vcs, _)| matches!(*vcs, "git" | "hg" | "svn" | "bzr"))
        {
            let pinned = rest
                .split('#')
                .next()
                .and_then(|r| r.rsplit_once('@'))
                .is_some_and(|(_, c)| c.len() == 40 && c.bytes().all(|b| b.is_ascii_hexdigit()));
            return if pinned {
                Self::Named(text.to_owned())
            } else {
                Self::Moving(text.to_owned())
            };
        }
        if address.starts_with("https://") || address.starts_with("http://") {
            return Self::Named(text.to_owned());
        }
        let local = address.strip_prefix("file://").unwrap_or(address);
        let (file, extras) = match local.find('[') {
            Some(at) if local.ends_with(']') => local.split_at(at),
            _ => (local, ""),
        };
        let looks_local = address.starts_with("file:")
            || file.starts_with(['.', '/'])
            || file.contains('/')
            || has_archive_suffix(file);
        if looks_local {
            let path = base.join(file);
            if path.is_file() && extras.is_empty() && !text.contains(" @ ") {
                return Self::File(path.canonicalize().unwrap_or(path));
            }
            return Self::Moving(format!("{}{extras}", path.display()));
        }
        Self::Named(normalise(text))
    }

    /// As `uv` takes it.
    pub fn argument(&self) -> String {
        match self {
            Self::Named(text) | Self::Moving(text) => text.clone(),
            Self::File(path) => path.display().to_string(),
        }
    }

    /// What names it in an environment's key; `None` for one that must not be shared.
    pub fn identity(&self) -> Option<String> {
        match self {
            Self::Named(text) => Some(text.clone()),
            Self::File(path) => {
                let digest = blake3::hash(&std::fs::read(path).ok()?);
                Some(format!(
                    "{}#{}",
                    path.file_name()?.to_string_lossy(),
                    digest.to_hex()
                ))
            }
            Self::Moving(_) => None,
        }
    }

    /// The distribution's name, where the text has one.
    pub fn name(&self) -> Option<&str> {
        let Self::Named(text) = self else { return None };
        let end = text
            .find(|c: char| !(c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.')))
            .unwrap_or(text.len());
        (end > 0 && !text[end..].starts_with(':')).then(|| &text[..end])
    }
}

fn has_archive_suffix(file: &str) -> bool {
    [".whl", ".tar.gz", ".zip", ".tgz"]
        .iter()
        .any(|s| file.ends_with(s))
}

/// One spelling for equal requirements: `Scikit_Learn >= 1.0` and `scikit-learn>=1.0`. What has another shape stays as it is.
pub fn normalise(text: &str) -> String {
    let text = text.trim();
    let name_end = text
        .find(|c: char| !(c.is_ascii_alphanumeric() || "-_.".contains(c)))
        .unwrap_or(text.len());
    let (name, rest) = text.split_at(name_end);
    let (extras, rest) = match rest.trim_start().strip_prefix('[') {
        Some(rest) => match rest.split_once(']') {
            Some(parts) => parts,
            None => return text.to_owned(),
        },
        None => ("", rest),
    };
    let (versions, marker) = rest.split_once(';').unwrap_or((rest, ""));
    let versions: String = versions.split_whitespace().collect();
    let versions = versions
        .strip_prefix('(')
        .and_then(|v| v.strip_suffix(')'))
        .unwrap_or(&versions);
    if name.is_empty() || !(versions.is_empty() || versions.starts_with(['=', '<', '>', '!', '~'])) {
        return text.to_owned();
    }
    let sorted = |list: &str| {
        let mut items: Vec<&str> = list.split(',').map(str::trim).filter(|i| !i.is_empty()).collect();
        items.sort_unstable();
        items.join(",")
    };
    let mut out = String::with_capacity(text.len());
    for c in name.chars() {
        let c = if matches!(c, '_' | '.') {
            '-'
        } else {
            c.to_ascii_lowercase()
        };
        if !(c == '-' && out.ends_with('-')) {
            out.push(c);
        }
    }
    let extras = sorted(&extras.to_ascii_lowercase());
    if !extras.is_empty() {
        out.push_str(&format!("[{extras}]"));
    }
    out.push_str(&sorted(versions));
    if !marker.trim().is_empty() {
        out.push_str("; ");
        out.push_str(marker.trim());
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_requirements_have_one_spelling() {
        for (text, expected) in [
            ("Scikit_Learn >= 1.0 , <2", "scikit-learn<2,>=1.0"),
            ("kfp==2.17.0", "kfp==2.17.0"),
            ("a.b[Y, x] (==1)", "a-b[x,y]==1"),
            ("a__B", "a-b"),
            (
                "pkg @ https://example.com/p.whl",
                "pkg @ https://example.com/p.whl",
            ),
            ("pkg[", "pkg["),
            (
                "typing-extensions>=3.7.4,<5; python_version<\"3.9\"",
                "typing-extensions<5,>=3.7.4; python_version<\"3.9\"",
            ),
        ] {
            assert_eq!(normalise(text), expected);
            assert_eq!(normalise(expected), expected);
        }
    }

    #[test]
    fn what_may_change_has_no_identity() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("a-1-py3-none-any.whl"), "x").unwrap();
        let parse = |t: &str| Requirement::parse(t, dir.path());
        assert_eq!(parse("numpy").identity().as_deref(), Some("numpy"));
        assert!(parse("git+https://example.com/a.git").identity().is_none());
        assert!(
            parse("git+https://example.com/a.git@0123456789012345678901234567890123456789")
                .identity()
                .is_some()
        );
        assert!(parse(".").identity().is_none());
        assert!(parse("./sub[extra]").identity().is_none());
        assert!(
            parse("./a-1-py3-none-any.whl")
                .identity()
                .unwrap()
                .starts_with("a-1-py3-none-any.whl#")
        );
        assert!(parse("b @ https://example.com/b.whl").identity().is_some());
        assert_eq!(parse("kfp[x]==1").name(), Some("kfp"));
    }

    #[test]
    fn pip_conf_is_understood() {
        let i = parse_pip_conf(
            "[global]\nindex-url = https://a/simple\nextra-index-url =\n    https://b/simple\n    https://c/simple\n[list]\nindex-url = no\n[install]\ntrusted_host = a b\n",
        );
        assert_eq!(i.index_url.as_deref(), Some("https://a/simple"));
        assert_eq!(i.extra_index_urls, ["https://b/simple", "https://c/simple"]);
        assert_eq!(i.trusted_hosts, ["a", "b"]);
    }
}
