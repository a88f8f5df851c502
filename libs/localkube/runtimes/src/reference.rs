//! Image names: the forms under which one image is known.

use std::sync::LazyLock;

use regex::Regex;

/// An image name taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reference {
    /// Without Docker's own registry and `library/`, e.g. `python`, `kubeflow/xgboost`, `ghcr.io/a/b`.
    familiar: String,
    /// With them, e.g. `docker.io/library/python`.
    canonical: String,
    tag: String,
    given: String,
}

impl Reference {
    /// Takes apart `[registry/]path[:tag][@digest]`; a missing tag is `latest`.
    pub fn parse(image: &str) -> Self {
        let given = image.trim().to_owned();
        let without_digest = given.split_once('@').map_or(given.as_str(), |(name, _)| name);
        let (name, tag) = match without_digest.rsplit_once(':') {
            Some((name, tag)) if !tag.contains('/') => (name, tag),
            _ => (without_digest, "latest"),
        };
        let (registry, path) = match name.split_once('/') {
            Some((first, rest)) if first.contains(['.', ':']) || first == "localhost" => (first, rest),
            _ => ("docker.io", name),
        };
        let registry = if registry == "index.docker.io" {
            "docker.io"
        } else {
            registry
        };
        let (familiar, canonical) = if registry == "docker.io" {
            let short = path.strip_prefix("library/").unwrap_or(path);
            let long = if short.contains('/') {
                format!("docker.io/{short}")
            } else {
                format!("docker.io/library/{short}")
            };
            (short.to_owned(), long)
        } else {
            (format!("{registry}/{path}"), format!("{registry}/{path}"))
        };
        Self {
            familiar,
            canonical,
            tag: tag.to_owned(),
            given,
        }
    }

    /// Every spelling a pattern may match: with a tag for patterns that name one, without for those that do not.
    pub fn spellings(&self, pattern_has_tag: bool) -> Vec<String> {
        if pattern_has_tag {
            vec![
                self.given.clone(),
                format!("{}:{}", self.familiar, self.tag),
                format!("{}:{}", self.canonical, self.tag),
            ]
        } else {
            vec![self.familiar.clone(), self.canonical.clone()]
        }
    }

    /// Last part of the name, e.g. `launcher`.
    pub fn last(&self) -> &str {
        self.familiar.rsplit('/').next().unwrap_or(&self.familiar)
    }

    /// The Python minor version in the tag: `3.11` in `3.11-slim` or `v1.2-py3.11`.
    pub fn python_version(&self) -> Option<String> {
        static PYTHON: LazyLock<Option<Regex>> =
            LazyLock::new(|| Regex::new(r"(?:^|py|python|[-_])(3\.\d{1,2})(?:\.\d+)?(?:$|[^.\d])").ok());
        PYTHON
            .as_ref()?
            .captures(&self.tag)?
            .get(1)
            .map(|m| m.as_str().to_owned())
    }

    /// The first version number in the tag: `2.13.0` in `2.13.0-gpu` or `v2.13.0`.
    pub fn version(&self) -> Option<String> {
        static VERSION: LazyLock<Option<Regex>> = LazyLock::new(|| Regex::new(r"^v?(\d+(?:\.\d+)+)").ok());
        VERSION
            .as_ref()?
            .captures(&self.tag)?
            .get(1)
            .map(|m| m.as_str().to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_image_has_several_spellings() {
        for image in [
            "python:3.11",
            "docker.io/python:3.11",
            "docker.io/library/python:3.11",
            "library/python:3.11@sha256:ab",
        ] {
            let r = Reference::parse(image);
            assert!(r.spellings(true).contains(&"python:3.11".to_owned()), "{image}");
            assert!(
                r.spellings(true)
                    .contains(&"docker.io/library/python:3.11".to_owned()),
                "{image}"
            );
            assert_eq!(r.spellings(false), ["python", "docker.io/library/python"]);
        }
        let r = Reference::parse("localhost:5000/team/img");
        assert!(
            r.spellings(true)
                .contains(&"localhost:5000/team/img:latest".to_owned())
        );
        assert_eq!(r.last(), "img");
    }

    #[test]
    fn versions_come_from_the_tag() {
        let v = |i: &str| Reference::parse(i).python_version();
        assert_eq!(v("python:3.11-slim").as_deref(), Some("3.11"));
        assert_eq!(v("python:3.9.18").as_deref(), Some("3.9"));
        assert_eq!(v("x/y:v1-py3.10").as_deref(), Some("3.10"));
        assert_eq!(v("python:latest"), None);
        assert_eq!(
            Reference::parse("tensorflow/tensorflow:2.13.0-gpu")
                .version()
                .as_deref(),
            Some("2.13.0")
        );
        assert_eq!(Reference::parse("tensorflow/tensorflow").version(), None);
    }
}
