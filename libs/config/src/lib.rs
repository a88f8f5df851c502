//! Layered configuration: defaults < file < environment < flags, read once and checked as a whole.

use std::path::{Path, PathBuf};

use figment::Figment;
use figment::providers::{Env, Format as _, Serialized, Toml};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// A configuration that cannot be used. Its text says which key of which source, and what to do.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The named file cannot be read.
    #[error("config file {file}: {source}; check the path given with --config or FERROFLOW_CONFIG")]
    File {
        /// Path of the file.
        file: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A key is unknown, or its value is not of its type.
    #[error("{0}")]
    Value(String),
}

/// Puts a configuration together. `flags` serializes only the flags that were given (`skip_serializing_if`).
///
/// # Errors
/// If the file cannot be read, or a layer has an unknown key or a value of another type.
pub fn layered<T, F>(defaults: &T, file: Option<&Path>, env_prefix: &str, flags: &F) -> Result<T, ConfigError>
where
    T: Serialize + DeserializeOwned,
    F: Serialize,
{
    let mut figment = Figment::from(Serialized::defaults(defaults));
    if let Some(file) = file {
        let text = std::fs::read_to_string(file).map_err(|source| ConfigError::File {
            file: file.to_owned(),
            source,
        })?;
        syntax(file, &text)?;
        figment = figment.merge(Toml::string(&text));
    }
    // FERROFLOW_CONFIG names the file itself, and FERROFLOW_TEST_... what tests run against: no keys of it
    let env = Env::prefixed(env_prefix)
        .filter(|key| key != "config" && !key.starts_with("test_"))
        .split("__");
    figment
        .merge(env)
        .merge(Serialized::defaults(flags))
        .extract()
        .map_err(|error| ConfigError::Value(explain(&error, file, env_prefix)))
}

/// Says on one line where a file is no TOML.
fn syntax(file: &Path, text: &str) -> Result<(), ConfigError> {
    let Err(error) = text.parse::<toml::Table>() else {
        return Ok(());
    };
    let line = error.span().map_or(1, |span| {
        text[..span.start.min(text.len())].lines().count().max(1)
    });
    let what = error.message().lines().collect::<Vec<_>>().join(", ");
    Err(ConfigError::Value(format!(
        "config file {} line {line}: {what}; fix it or remove the file",
        file.display()
    )))
}

fn explain(error: &figment::Error, file: Option<&Path>, env_prefix: &str) -> String {
    let mut lines = Vec::new();
    for one in error.clone() {
        let key = one.path.join(".");
        let place = match (&one.metadata, file) {
            (Some(meta), Some(file)) if meta.name.contains("TOML") => {
                format!("config file {}: key {key:?}", file.display())
            }
            (Some(meta), _) if meta.name.contains("environment") => {
                let variable = one.path.join("__").to_uppercase();
                format!("environment variable {env_prefix}{variable}")
            }
            _ => format!("configuration: key {key:?}"),
        };
        lines.push(format!(
            "{place}: {}; fix or remove it (ferroflow up --help lists the keys)",
            one.kind
        ));
    }
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Settings {
        port: u16,
        name: String,
    }

    #[derive(Default, Serialize)]
    struct Flags {
        #[serde(skip_serializing_if = "Option::is_none")]
        name: Option<String>,
    }

    fn read(text: &str, flags: &Flags) -> Result<Settings, ConfigError> {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("f.toml");
        std::fs::write(&file, text).unwrap();
        let defaults = Settings {
            port: 1,
            name: "default".into(),
        };
        layered(&defaults, Some(&file), "FERROFLOW_CONFIG_TEST_", flags)
    }

    #[test]
    fn later_layers_win() {
        let flags = Flags {
            name: Some("flag".into()),
        };
        let got = read("port = 2\nname = \"file\"", &flags).unwrap();
        assert_eq!(
            got,
            Settings {
                port: 2,
                name: "flag".into()
            }
        );
        assert_eq!(read("", &Flags::default()).unwrap().port, 1);
    }

    #[test]
    fn errors_name_file_key_and_value() {
        let wrong = read("port = \"x\"", &Flags::default()).unwrap_err().to_string();
        assert!(wrong.contains("f.toml") && wrong.contains("\"port\""), "{wrong}");
        let broken = read("port = 1\nname = ", &Flags::default())
            .unwrap_err()
            .to_string();
        assert!(broken.contains("line 2") && !broken.contains('\n'), "{broken}");
        let unknown = read("prot = 1", &Flags::default()).unwrap_err().to_string();
        assert!(unknown.contains("prot"), "{unknown}");
    }
}
